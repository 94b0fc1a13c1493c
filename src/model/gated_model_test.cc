// The network under a gate: what it answers, held against plain loops with the visibility rule;
// what may and what may not change a bit of it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "model/test_gated_model.h"
#include "model/test_naive_decoder.h"
#include "model/test_sequence.h"

namespace coppice::model::testing {
namespace {

std::vector<int32_t> random_slices(int32_t total, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> slices;
  for (int32_t left = total; left > 0; left -= slices.back()) {
    slices.push_back(std::min(left, static_cast<int32_t>(1 + rng() % 70)));
  }
  return slices;
}

std::vector<float> values_of(const TensorView& view) {
  return {view.f32(), view.f32() + view.elements()};
}

struct Answer {
  std::vector<float> logits;  // [T, V]
  std::vector<float> memory;
  std::vector<uint8_t> keep;
  bool operator==(const Answer&) const = default;
};

Answer answer(const Gated& gated, DType type, const ops::GateRule& rule,
              const std::vector<int32_t>& tokens, const std::vector<int32_t>& slices) {
  GatedTestCache cache = gated.cache(type);
  GatedTestSequence& sequence = cache.begin(rule);
  Answer out;
  for (const int32_t size : slices) {
    const auto from = static_cast<size_t>(sequence.length());
    GatedTestCache::Step step(
        cache, {{sequence, std::span(tokens).subspan(from, static_cast<size_t>(size))}});
    const std::vector<float> logits = values_of(step.forward(*gated.model));
    out.logits.insert(out.logits.end(), logits.begin(), logits.end());
  }
  CHECK(sequence.length() == static_cast<int32_t>(tokens.size()));
  out.memory = sequence.memory();
  out.keep = sequence.keep();
  return out;
}

// --- against plain loops

// The gate's logits [T, Hkv] of a layer, in double.
NaiveMatrix naive_gate(const GateFile& file, int32_t layer, const NaiveMatrix& u) {
  const GateHeader& header = file.header();
  std::map<std::string, NaiveMatrix> w;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  for (const GateTensor& tensor : gate_tensors(header)) {
    if (!tensor.name.starts_with(prefix)) continue;
    const TensorData data = file.tensor(tensor).value();
    const auto cols = static_cast<size_t>(tensor.shape[tensor.shape.rank() - 1]);
    const auto count = static_cast<size_t>(tensor.shape.elements());
    w[tensor.name.substr(prefix.size())] = {
        count / cols, cols, std::vector<double>(data.view.f32(), data.view.f32() + count)};
  }
  NaiveMatrix z = naive_product(u, w["ws"]);
  for (size_t t = 0; t < z.rows; ++t) {
    for (size_t head = 0; head < z.cols; ++head) z.at(t, head) += w["b"].at(0, head);
  }
  if (header.kind == GateKind::kPoint) return z;
  NaiveMatrix q = naive_product(u, w["wq"]), k = naive_product(u, w["wk"]);
  const NaiveMatrix v = naive_product(u, w["wv"]);
  const auto dim = static_cast<size_t>(header.head_dim), reach = static_cast<size_t>(header.reach);
  std::vector<float> inv_freq;
  for (size_t i = 0; i < dim / 2; ++i) {
    inv_freq.push_back(static_cast<float>(
        std::pow(header.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim))));
  }
  naive_rope(q, inv_freq);
  naive_rope(k, inv_freq);
  NaiveMatrix a = NaiveMatrix::zeros(u.rows, q.cols);
  for (size_t begin = 0; begin < q.cols; begin += dim) {
    for (size_t t = 0; t < u.rows; ++t) {
      double sum = 0;
      for (size_t j = t + 1 > reach ? t + 1 - reach : 0; j <= t; ++j) {
        double score = 0;
        for (size_t d = begin; d < begin + dim; ++d) score += q.at(t, d) * k.at(j, d);
        const double share = std::exp(score / std::sqrt(static_cast<double>(dim)));
        sum += share;
        for (size_t d = begin; d < begin + dim; ++d) a.at(t, d) += share * v.at(j, d);
      }
      for (size_t d = begin; d < begin + dim; ++d) a.at(t, d) /= sum;
    }
  }
  const NaiveMatrix more = naive_product(a, w["wo"]);
  for (size_t i = 0; i < z.values.size(); ++i) z.values[i] += more.values[i];
  return z;
}

void expect_plain_loops(const std::string& name, const std::string& kind, GateTier tier) {
  constexpr size_t kTokens = 120;
  const Gated gated(name, kind, make_backend("ref", DType::kF32));
  const GateFile file = GateFile::open(gated.directory.path() + "/gate.safetensors").value();
  const ops::GateRule rule = gated.gate->rule(tier);
  const std::vector<int32_t> tokens = random_tokens(kTokens);
  GatedTestCache cache = gated.cache(DType::kF32);
  GatedTestSequence& sequence = cache.begin(rule);
  sequence.set_exact(50);
  GatedTestCache::Step step(cache, {{sequence, tokens}});
  const TensorView logits = step.forward(*gated.model);

  const auto heads = static_cast<size_t>(gated.config().num_key_value_heads);
  const auto kept = [&](size_t list, size_t position) {
    return sequence.keep(list, static_cast<int32_t>(position)) != ops::kDroppedByte;
  };
  size_t dropped = 0, undecided = 0;
  const auto decide = [&](int32_t layer, const NaiveMatrix& u) {
    const NaiveMatrix z = naive_gate(file, layer, u);
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t head = 0; head < heads; ++head) {
        const bool keeps = kept(static_cast<size_t>(layer) * heads + head, t);
        dropped += keeps ? 0 : 1;
        const double margin = z.at(t, head) - double{rule.threshold};
        const bool is_protected = t < static_cast<size_t>(rule.sinks) || t == 50;
        if (!is_protected && std::abs(margin) < 1e-4) {
          ++undecided;
        } else {
          EXPECT_EQ(keeps, is_protected || margin > 0) << layer << " " << head << " " << t;
        }
      }
    }
  };
  const auto sees = [&](int32_t layer, size_t head, size_t query, size_t key) {
    return key < static_cast<size_t>(rule.sinks) ||
           query - key < static_cast<size_t>(rule.window) ||
           kept(static_cast<size_t>(layer) * heads + head, key);
  };
  const NaiveMatrix expected = NaiveDecoder(*gated.base).forward(tokens, decide, sees);
  const size_t all = static_cast<size_t>(gated.config().num_hidden_layers) * heads * kTokens;
  EXPECT_GT(dropped, all / 5);
  EXPECT_LT(dropped, all * 19 / 20);
  EXPECT_LT(undecided, all / 100);
  double worst = 0;
  for (size_t i = 0; i < expected.values.size(); ++i) {
    worst = std::max(worst, std::abs(double{logits.f32()[i]} - expected.values[i]));
  }
  EXPECT_LT(worst, 1e-5);
}

TEST(GatedModel, AnswersAsPlainLoopsWithTheVisibilityRule) {
  for (const char* name : kGoldenModels) {
    for (const char* kind : {"point", "causal"}) {
      SCOPED_TRACE(std::string(name) + " " + kind);
      expect_plain_loops(name, kind, GateTier::kMild);
      expect_plain_loops(name, kind, GateTier::kHard);
    }
  }
}

// That the loops above would see a wrong rule.
TEST(GatedModel, PlainLoopsWithoutARuleAreTheUngatedModel) {
  const Gated gated("llama", "causal", make_backend("ref", DType::kF32));
  const std::vector<int32_t> tokens = random_tokens(60);
  const NaiveMatrix expected = NaiveDecoder(*gated.base)
                                   .forward(
                                       tokens, [](int32_t, const NaiveMatrix&) {},
                                       [](int32_t, size_t, size_t, size_t) { return true; });
  const auto distance = [&](const std::vector<float>& logits) {
    double worst = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      worst = std::max(worst, std::abs(double{logits[i]} - expected.values[i]));
    }
    return worst;
  };
  EXPECT_LT(distance(logits_in_slices(*gated.backend, *gated.model, DType::kF32, tokens, {60})),
            1e-5);
  const ops::GateRule rule = gated.gate->rule(GateTier::kMild);
  EXPECT_GT(distance(answer(gated, DType::kF32, rule, tokens, {60}).logits), 1e-2);
}

// --- what changes no bit

class GatedOnBackend : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, GatedOnBackend, ::testing::ValuesIn(kBackends),
                         [](const auto& test) { return std::string(test.param); });

TEST_P(GatedOnBackend, SlicesAndThreadsChangeNoBit) {
  constexpr int32_t kTokens = 150;
  const std::vector<int32_t> tokens = random_tokens(kTokens);
  for (const char* what : {"point", "causal", "policy:random,keep=0.4,window=40",
                           "policy:key-norm,threshold=2,window=20", "policy:window,window=33"}) {
    for (const DType type : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::string(what) + " " + std::string(dtype_name(type)));
      const Gated one("qwen3", what, make_backend(GetParam(), type));
      const Gated two("qwen3", what, make_backend(GetParam(), type, 2));
      const ops::GateRule rule = one.gate->rule(GateTier::kMild);
      const Answer whole = answer(one, type, rule, tokens, {kTokens});
      const std::vector<int32_t> singles(kTokens, 1);
      EXPECT_EQ(answer(two, type, rule, tokens, singles), whole);
      for (uint32_t seed = 0; seed < 2; ++seed) {
        EXPECT_EQ(answer(two, type, rule, tokens, random_slices(kTokens, seed)), whole) << seed;
      }
    }
  }
}

TEST_P(GatedOnBackend, WhatIsKeptWholeIsTheUngatedModel) {
  constexpr int32_t kTokens = 600;  // more than one range of the fold
  const std::vector<int32_t> tokens = random_tokens(kTokens);
  const std::vector<int32_t> slices{250, 1, 349};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Gated gated("llama", "causal", make_backend(GetParam(), type));
    ops::GateRule rule = gated.gate->rule(GateTier::kMild);
    rule.threshold = -INFINITY;
    const Answer kept = answer(gated, type, rule, tokens, slices);
    const auto lists = static_cast<std::ptrdiff_t>(kept.keep.size() / kCapacity);
    EXPECT_EQ(std::count(kept.keep.begin(), kept.keep.end(), ops::kDroppedByte),
              lists * (kCapacity - kTokens));  // the room that is left
    EXPECT_EQ(logits_in_slices(*gated.backend, *gated.model, type, tokens, slices), kept.logits);
  }
}

// Sequences of tiers and of none in one step, against each alone.
TEST_P(GatedOnBackend, RowsBesideChangeNoBit) {
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Gated gated("llama3", "causal", make_backend(GetParam(), type, 2));
    const std::vector<int32_t> a = random_tokens(90, 1), b = random_tokens(70, 2),
                               c = random_tokens(80, 3);
    const ops::GateRule mild = gated.gate->rule(GateTier::kMild);
    const ops::GateRule hard = gated.gate->rule(GateTier::kHard);
    const Answer mild_alone = answer(gated, type, mild, a, {90});
    const Answer hard_alone = answer(gated, type, hard, c, {80});
    const std::vector<float> plain_alone =
        logits_in_slices(*gated.backend, *gated.model, type, b, {70});
    GatedTestCache cache = gated.cache(type, 3);
    GatedTestSequence& first = cache.begin(mild);
    GatedTestSequence& plain = cache.begin(std::nullopt);
    GatedTestSequence& second = cache.begin(hard);
    std::vector<float> of_mild, of_plain, of_hard;
    const auto step = [&](size_t from_a, size_t rows_a, size_t from_b, size_t rows_b, size_t from_c,
                          size_t rows_c) {
      GatedTestCache::Step made(cache, {{first, std::span(a).subspan(from_a, rows_a)},
                                        {plain, std::span(b).subspan(from_b, rows_b)},
                                        {second, std::span(c).subspan(from_c, rows_c)}});
      const std::vector<float> logits = values_of(made.forward(*gated.model));
      const auto at = [&](size_t row) {
        return logits.begin() + static_cast<std::ptrdiff_t>(row * kVocabulary);
      };
      of_mild.insert(of_mild.end(), at(0), at(rows_a));
      of_plain.insert(of_plain.end(), at(rows_a), at(rows_a + rows_b));
      of_hard.insert(of_hard.end(), at(rows_a + rows_b), logits.end());
    };
    step(0, 50, 0, 1, 0, 30);
    step(50, 1, 1, 60, 30, 49);
    step(51, 39, 61, 9, 79, 1);
    EXPECT_EQ(of_plain, plain_alone);
    EXPECT_EQ(of_mild, mild_alone.logits);
    EXPECT_EQ(of_hard, hard_alone.logits);
    EXPECT_EQ(first.keep(), mild_alone.keep);
    EXPECT_EQ(second.keep(), hard_alone.keep);
    EXPECT_EQ(first.memory(), mild_alone.memory);
  }
}

TEST_P(GatedOnBackend, DecisionsDependOnThePastAlone) {
  constexpr int32_t kTokens = 90;
  const std::vector<int32_t> tokens = random_tokens(kTokens);
  for (const char* what : {"point", "causal"}) {
    const Gated gated("llama", what, make_backend(GetParam(), DType::kBF16));
    const ops::GateRule rule = gated.gate->rule(GateTier::kMild);
    const Answer before = answer(gated, DType::kBF16, rule, tokens, {kTokens});
    for (const size_t k : {0u, 30u, 63u, 89u}) {
      std::vector<int32_t> changed = tokens;
      changed[k] = (changed[k] + 1) % kVocabulary;
      const Answer after = answer(gated, DType::kBF16, rule, changed, {kTokens});
      const size_t lists = before.keep.size() / kCapacity;
      for (size_t list = 0; list < lists; ++list) {
        const auto begin = [&](const Answer& one) {
          return one.keep.begin() + static_cast<std::ptrdiff_t>(list * kCapacity);
        };
        EXPECT_TRUE(
            std::equal(begin(before), begin(before) + static_cast<std::ptrdiff_t>(k), begin(after)))
            << what << " list " << list << " token " << k;
      }
      EXPECT_TRUE(std::equal(before.logits.begin(),
                             before.logits.begin() + static_cast<std::ptrdiff_t>(k * kVocabulary),
                             after.logits.begin()));
      EXPECT_NE(before.logits, after.logits);
    }
  }
}

}  // namespace
}  // namespace coppice::model::testing
