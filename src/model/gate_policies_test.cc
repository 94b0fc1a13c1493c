// What each policy keeps, and that it too decides by the past alone.
#include "model/gate_policies.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "model/gated_test_sequence.h"
#include "model/test_files.h"
#include "model/test_golden.h"

namespace coppice::model::testing {
namespace {

constexpr int32_t kTokens = 400;

ModelConfig config() { return open_golden("llama")->config(); }

std::vector<int32_t> some_tokens(uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(kTokens);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % 300);
  return tokens;
}

// [lists][kTokens] bytes of what a policy decides of the tokens, in two slices.
std::vector<uint8_t> decisions(const std::string& spec, const std::vector<int32_t>& tokens,
                               int32_t first_slice = 170, std::span<float> keys = {}) {
  const ModelConfig c = config();
  const auto backend = make_backend("ref", DType::kF32);
  const auto gate = make_policy(spec, c).value();
  GatedTestCache cache(*backend, c, DType::kF32, kTokens, gate.get());
  GatedTestSequence& sequence = cache.begin(gate->rule(GateTier::kNormal));
  for (const int32_t size : {first_slice, kTokens - first_slice}) {
    const auto from = static_cast<size_t>(sequence.length());
    GatedTestCache::Step step(
        cache, {{sequence, std::span(tokens).subspan(from, static_cast<size_t>(size))}});
    std::vector<float> logits(static_cast<size_t>(size * c.num_key_value_heads));
    GateInput input{.tokens = step.tokens()};
    input.logits = {logits.data(), DType::kF32, {size, c.num_key_value_heads}};
    const int64_t width = int64_t{c.num_key_value_heads} * c.head_dim;
    if (!keys.empty()) {
      input.keys = {keys.data() + static_cast<int64_t>(from) * width, DType::kF32, {size, width}};
    }
    for (int32_t layer = 0; layer < c.num_hidden_layers; ++layer) {
      gate->decide(layer, input, step.gated());
    }
    sequence.advance(size);
  }
  return sequence.keep();
}

size_t lists() {
  const ModelConfig c = config();
  return static_cast<size_t>(c.num_hidden_layers * c.num_key_value_heads);
}

double share_kept(const std::vector<uint8_t>& keep) {
  size_t kept = 0;
  for (const uint8_t byte : keep) kept += byte == ops::kDroppedByte ? 0 : 1;
  return static_cast<double>(kept) / static_cast<double>(keep.size());
}

TEST(GatePolicies, WindowKeepsNothingAndStreamingTheSinks) {
  for (const uint8_t byte : decisions("window", some_tokens(1))) EXPECT_EQ(byte, ops::kDroppedByte);
  const std::vector<uint8_t> keep = decisions("streaming,sinks=7", some_tokens(1));
  for (size_t i = 0; i < keep.size(); ++i) {
    EXPECT_EQ(keep[i], i % kTokens < 7 ? ops::kProtectedByte : ops::kDroppedByte) << i;
  }
}

TEST(GatePolicies, RandomKeepsItsShareAndLessOfTheSame) {
  const std::vector<int32_t> tokens = some_tokens(1);
  const std::vector<uint8_t> half = decisions("random,keep=0.5,sinks=0", tokens);
  const std::vector<uint8_t> eighth = decisions("random,keep=0.125,sinks=0", tokens);
  // 1600 draws: five standard deviations.
  EXPECT_NEAR(share_kept(half), 0.5, 0.0625);
  EXPECT_NEAR(share_kept(eighth), 0.125, 0.042);
  for (size_t i = 0; i < half.size(); ++i) {
    EXPECT_TRUE(eighth[i] == ops::kDroppedByte || eighth[i] == half[i]) << i;
  }
  EXPECT_EQ(share_kept(decisions("random,keep=1,sinks=0", tokens)), 1.0);
  EXPECT_EQ(share_kept(decisions("random,keep=0,sinks=0", tokens)), 0.0);
}

TEST(GatePolicies, RandomDependsOnSeedPlaceAndTokenAlone) {
  const std::vector<int32_t> tokens = some_tokens(1);
  const std::vector<uint8_t> keep = decisions("random,keep=0.5", tokens);
  EXPECT_EQ(decisions("random,keep=0.5,seed=1", tokens, 1), keep);
  EXPECT_NE(decisions("random,keep=0.5,seed=2", tokens), keep);
  std::vector<int32_t> other = some_tokens(2);
  std::copy_n(tokens.begin(), 250, other.begin());
  const std::vector<uint8_t> shared = decisions("random,keep=0.5", other);
  int32_t different = 0;
  for (size_t list = 0; list < lists(); ++list) {
    for (size_t t = 0; t < kTokens; ++t) {
      const size_t i = list * kTokens + t;
      if (t < 250) {
        EXPECT_EQ(shared[i], keep[i]) << list << " " << t;
      } else {
        different += shared[i] == keep[i] ? 0 : 1;
      }
    }
  }
  EXPECT_GT(different, 300);
  // Lists decide for themselves.
  const auto list = [&](size_t i) {
    const auto begin = keep.begin() + static_cast<std::ptrdiff_t>(i * kTokens);
    return std::vector<uint8_t>(begin, begin + kTokens);
  };
  for (size_t i = 1; i < lists(); ++i) EXPECT_NE(list(i), list(0));
}

TEST(GatePolicies, KeyNormKeepsShortKeys) {
  const ModelConfig c = config();
  const auto heads = static_cast<size_t>(c.num_key_value_heads);
  const auto dim = static_cast<size_t>(c.head_dim);
  std::mt19937 rng(1);
  std::normal_distribution<float> normal;
  std::vector<float> keys(kTokens * heads * dim);
  for (float& key : keys) key = normal(rng);
  const std::vector<uint8_t> keep =
      decisions("key-norm,threshold=4,sinks=0", some_tokens(1), 170, keys);
  EXPECT_GT(share_kept(keep), 0.2);
  EXPECT_LT(share_kept(keep), 0.8);
  for (size_t list = 0; list < lists(); ++list) {
    for (size_t t = 0; t < kTokens; ++t) {
      double squares = 0;
      for (size_t d = 0; d < dim; ++d) {
        squares += std::pow(double{keys[(t * heads + list % heads) * dim + d]}, 2);
      }
      if (std::abs(std::sqrt(squares) - 4) < 1e-5) continue;
      EXPECT_EQ(keep[list * kTokens + t] != ops::kDroppedByte, std::sqrt(squares) < 4);
    }
  }
  EXPECT_TRUE(make_policy("key-norm,threshold=4", c).value()->needs().keys);
}

TEST(GatePolicies, SettingsMakeTheRule) {
  const ModelConfig c = config();
  const auto rule = [&](const std::string& spec) {
    return make_policy(spec, c).value()->rule(GateTier::kMild);
  };
  EXPECT_EQ(rule("window"), (ops::GateRule{0, 64, 0}));
  EXPECT_EQ(rule("window,window=512"), (ops::GateRule{0, 512, 0}));
  EXPECT_EQ(rule("streaming,sinks=64,window=1"), (ops::GateRule{0, 1, 64}));
  EXPECT_EQ(rule("random,keep=0.5"), (ops::GateRule{0, 64, 4}));
  EXPECT_EQ(rule("key-norm,threshold=2.5"), (ops::GateRule{-2.5f, 64, 4}));
}

TEST(GatePolicies, HashIsOfWhatIsDecided) {
  const ModelConfig c = config();
  const auto hash = [&](const std::string& spec) { return make_policy(spec, c).value()->hash(); };
  EXPECT_EQ(hash("random,keep=0.5"), hash("random,seed=1,keep=0.50"));
  EXPECT_NE(hash("random,keep=0.5"), hash("random,keep=0.5,seed=2"));
  EXPECT_NE(hash("random,keep=0.5"), hash("random,keep=0.5,window=63"));
  EXPECT_NE(hash("window"), hash("streaming,sinks=0"));
  EXPECT_EQ(make_policy("streaming", c).value()->describe(), "policy:streaming,window=64,sinks=4");
}

TEST(GatePolicies, WrongSettingsAreNamed) {
  const ModelConfig c = config();
  const auto refused = [&](const std::string& spec, const char* part) {
    const auto gate = make_policy(spec, c);
    EXPECT_TRUE(contains(message_of(gate), part));
    EXPECT_TRUE(contains(message_of(gate), "\"policy:"));
    EXPECT_EQ(gate.error().code, ErrorCode::kInvalidArgument);
  };
  refused("", "no such policy; there are window, streaming, random, key-norm");
  refused("h2o", "there are window, streaming, random, key-norm");
  refused("window,sinks=4", "no setting \"sinks\"; window has window");
  refused("window,", "no setting \"\"");
  refused("streaming,window", "window must be an integer from 1 to 512");
  refused("streaming,window=", "window must be an integer");
  refused("streaming,window=0", "window must be");
  refused("streaming,window=513", "window must be");
  refused("streaming,window=2.5", "window must be");
  refused("streaming,window=2x", "window must be");
  refused("streaming,window=nan", "window must be");
  refused("streaming,sinks=1,sinks=1", "sinks is given twice");
  refused("random", "keep must be given");
  refused("random,keep=1.5", "keep must be a number from 0 to 1");
  refused("random,keep=0.5,seed=-1", "seed must be an integer");
  refused("key-norm", "threshold must be given");
  refused("key-norm,threshold=inf", "threshold must be a number");
}

TEST(GatePolicies, OpenAsGatesDo) {
  const auto base = open_golden("llama");
  const auto backend = make_backend("ref", DType::kF32);
  const auto gate = Gate::open("policy:streaming", *base, *backend);
  ASSERT_TRUE(gate.has_value());
  EXPECT_EQ((*gate)->needs(), GateNeeds{});
  EXPECT_EQ((*gate)->weight(0), nullptr);
  EXPECT_EQ((*gate)->memory_floats(), 0);
}

}  // namespace
}  // namespace coppice::model::testing
