// A hit changes nothing, bit for bit (architecture, promise 3): one request in every kind of
// company and cut, on every golden model, type, backend and thread count. Each condition first
// asserts that it happened. The canary at the end shows that the comparison can fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "engine/test_harness.h"
#include "ops/passing_backend.h"
#include "other_fold_backend.h"
#include "promise3.h"

namespace coppice::engine {
namespace {

constexpr size_t kPrompt = 9 * 64 + 29;  // nine chunks and a remainder, across a fold range
constexpr int32_t kAnswer = 12;

struct Case {
  const char* model;
  WeightType dtype;
  const char* backend;
  int32_t threads;
  std::optional<FoldCut> other_fold = {};
  std::optional<KvType> kv_type = {};  // where it is not that of the weights

  friend void PrintTo(const Case& c, std::ostream* out) {
    *out << c.model << " on " << c.backend << ", " << c.threads << " threads";
  }
  auto key() const {
    return std::make_tuple(std::string(model), std::string(backend), other_fold, kv_type);
  }
};

EngineOptions options_of(const Case& given) {
  EngineOptions o = golden_options(given.model);
  o.dtype = given.dtype;
  o.kv_type =
      given.kv_type.value_or(given.dtype == WeightType::kF32 ? KvType::kF32 : KvType::kBF16);
  o.backend = given.backend;
  o.threads = given.threads;
  o.max_live = 64;
  o.max_rows = 600;
  o.slice = 512;
  o.prompt_logits = true;
  return o;
}

Rig rig_of(const Case& given, const EngineOptions& options) {
  if (!given.other_fold) return Rig(options);
  return Rig(options, [&](std::unique_ptr<ops::Backend> inner) {
    return fold_in_another_order(std::move(inner), *given.other_fold);
  });
}

std::vector<TokenId> target() { return noise(1, kPrompt); }

// The request cold, alone, on one thread.
Take alone(Case given, const std::vector<TokenId>& prompt, const Sampling& sampling) {
  given.threads = 1;
  Rig rig = rig_of(given, options_of(given));
  const auto tape = rig.submit(prompt, sampling);
  rig.run();
  EXPECT_EQ(tape->take().result.usage.cached_tokens, 0);
  return tape->take();
}

const Take& base_of(const Case& given) {
  static std::map<decltype(given.key()), Take> made;
  const auto [at, fresh] = made.try_emplace(given.key());
  if (fresh) at->second = alone(given, target(), greedy(kAnswer));
  return at->second;
}

// --- the conditions

Diff warm(const Case& given) {
  Rig rig = rig_of(given, options_of(given));
  rig.submit(target(), greedy(kAnswer));
  rig.run();
  const auto tape = rig.submit(target(), greedy(kAnswer));
  rig.run();
  EXPECT_EQ(tape->take().result.usage.cached_tokens, static_cast<int64_t>(kPrompt) - 1);
  return compare(*tape, base_of(given));
}

// A hit that ends inside a page, and one that ends where another retained prefix was split.
Diff warm_in_part(const Case& given) {
  Rig rig = rig_of(given, options_of(given));
  for (const size_t shared : {size_t{333}, size_t{201}, size_t{540}}) {
    rig.submit(joined(first_of(target(), shared), noise(50, 40)), greedy(2));
    rig.run();
  }
  const auto tape = rig.submit(target(), greedy(kAnswer));
  rig.run();
  EXPECT_GT(tape->take().result.usage.cached_tokens, 512);
  EXPECT_LT(tape->take().result.usage.cached_tokens, 541);
  return compare(*tape, base_of(given));
}

Diff resliced(const Case& given, int32_t slice) {
  EngineOptions o = options_of(given);
  o.slice = slice;
  Rig rig = rig_of(given, o);
  const auto tape = rig.submit(target(), greedy(kAnswer));
  rig.run();
  EXPECT_EQ(rig.core().stats().longest_slice, slice);
  return compare(*tape, base_of(given));
}

// Requests that share the target's beginning at eight different lengths.
std::vector<TokenId> companion(uint32_t i) {
  return joined(first_of(target(), 190 + i % 8 * 47), noise(100 + i, 13 + i % 7));
}

const Take& companion_alone(const Case& given, uint32_t i) {
  static std::map<std::pair<decltype(given.key()), uint32_t>, Take> made;
  const auto [at, fresh] = made.try_emplace({given.key(), i});
  if (fresh) at->second = alone(given, companion(i), greedy(2 * kAnswer));
  return at->second;
}

// How many of a company are compared: all, but ref takes a second for each.
uint32_t compared_of(const Case& given, uint32_t company) {
  return given.backend == std::string("ref") ? 4 : company;
}

// `company` requests in one step.
Diff in_company(const Case& given, uint32_t company, AttentionPartition partition) {
  EngineOptions o = options_of(given);
  o.attention = partition;
  Rig rig = rig_of(given, o);
  std::vector<std::shared_ptr<Tape>> tapes;
  // Long enough answers that the first still run when the last has been prefilled.
  const Sampling sampling = greedy(2 * kAnswer);
  for (uint32_t i = 1; i < company; ++i) {
    EXPECT_GE(companion(i).size(), 3u * 64u + 1u);
    tapes.push_back(rig.submit(companion(i), sampling));
  }
  tapes.push_back(rig.submit(target(), sampling));
  rig.run();
  EXPECT_EQ(rig.core().stats().max_step_sequences, company);
  Diff diff = compare(*tapes.back(), base_of(given));
  const uint32_t stride = company / compared_of(given, company);
  for (uint32_t i = stride; i < company; i += stride) {
    diff += compare(*tapes[i - 1], companion_alone(given, i));
  }
  return diff;
}

// Each choice against its own text run cold as a prompt.
Diff forked(const Case& given) {
  Rig rig = rig_of(given, options_of(given));
  Sampling s = greedy(kAnswer);
  s.n = 3;
  s.temperature = 1.5;
  s.seed = 11;
  const auto tape = rig.submit(target(), s);
  rig.run();
  Diff diff;
  std::set<std::vector<TokenId>> different;
  for (int32_t choice = 0; choice < s.n; ++choice) {
    const Take& take = tape->take(choice);
    EXPECT_EQ(take.result.usage.cached_tokens, choice == 0 ? 0 : static_cast<int64_t>(kPrompt));
    EXPECT_EQ(take.tokens.size(), static_cast<size_t>(kAnswer));
    different.insert(take.tokens);
    diff += compare(take, alone(given, joined(target(), take.tokens), greedy(1)));
  }
  EXPECT_EQ(different.size(), 3u);
  diff.different += tape->unsteady_rows;
  return diff;
}

// Set aside in the middle of its prompt or its answer, with some or all of its own pages taken,
// then resumed.
Diff preempted(const Case& given, bool in_prompt, bool take_all) {
  EngineOptions o = options_of(given);
  o.slice = 200;
  Rig rig = rig_of(given, o);
  rig.submit(joined(first_of(target(), 250), noise(60, 30)), greedy(40));
  const auto tape = rig.submit(target(), greedy(kAnswer));
  const Take& take = tape->take();
  while (take.logits.size() < 150 || (!in_prompt && take.tokens.size() < 5)) rig.step();
  EXPECT_LE(take.tokens.size(), in_prompt ? 0u : 5u);
  EXPECT_TRUE(rig.core().set_budget(rig.core().stats().bytes_held * 9 / 10));
  if (take_all) rig.core().flush();
  EXPECT_TRUE(rig.core().set_budget(*o.kv_budget));
  rig.run();
  EXPECT_GE(take.result.preemptions, 1);
  // What was taken was evaluated again.
  EXPECT_GT(take.result.usage.evaluated_tokens, static_cast<int64_t>(kPrompt) - 250 + kAnswer);
  return compare(*tape, base_of(given));
}

// Two equal prompts at once; `cancel_after` steps later the first goes (0: never).
Diff joined_prefill(const Case& given, int cancel_after) {
  EngineOptions o = options_of(given);
  o.slice = 100;
  Rig rig = rig_of(given, o);
  const auto first = rig.submit(target(), greedy(kAnswer));
  const auto second = rig.submit(target(), greedy(kAnswer));
  for (int i = 0; i < cancel_after; ++i) rig.step();
  if (cancel_after > 0) rig.core().cancel(1);
  rig.run();
  const int64_t written = cancel_after > 0 ? cancel_after * 100 : static_cast<int64_t>(kPrompt) - 1;
  EXPECT_EQ(second->take().result.usage.cached_tokens, written);
  Diff diff = compare(*second, base_of(given));
  diff += compare(*first, base_of(given));
  return diff;
}

class Promise3 : public testing::TestWithParam<Case> {
 protected:
  static void expect_same(const Diff& diff, int at_least = kAnswer) {
    EXPECT_EQ(diff.different, 0);
    EXPECT_GE(diff.compared, at_least);
  }
  static void expect_company(uint32_t company, AttentionPartition partition) {
    const auto compared = static_cast<int>(compared_of(GetParam(), company));
    expect_same(in_company(GetParam(), company, partition), (2 * compared - 1) * kAnswer);
  }
};

TEST_P(Promise3, ColdAlone) {
  Rig rig = rig_of(GetParam(), options_of(GetParam()));
  const auto tape = rig.submit(target(), greedy(kAnswer));
  rig.run();
  EXPECT_EQ(tape->take().tokens, base_of(GetParam()).tokens);
  expect_same(compare(*tape, base_of(GetParam())), kPrompt + kAnswer - 1);
}

TEST_P(Promise3, Warm) { expect_same(warm(GetParam())); }

TEST_P(Promise3, WarmInPart) { expect_same(warm_in_part(GetParam()), kAnswer + 60); }

TEST_P(Promise3, Resliced) {
  for (const int32_t slice : {1, 7, 64, 512}) {
    expect_same(resliced(GetParam(), slice), kPrompt + kAnswer - 1);
  }
}

TEST_P(Promise3, InABatchOf32) { expect_company(32, AttentionPartition::kTwoPhase); }

TEST_P(Promise3, InABatchOf64) { expect_company(64, AttentionPartition::kTwoPhase); }

// `ref` knows no partition.
class Promise3PerSequence : public Promise3 {};

TEST_P(Promise3PerSequence, InABatchOf32) { expect_company(32, AttentionPartition::kPerSequence); }

TEST_P(Promise3, Forked) { expect_same(forked(GetParam()), 3 * (kAnswer - 1)); }

TEST_P(Promise3, PreemptedAndResumed) {
  for (const bool in_prompt : {false, true}) {
    for (const bool take_all : {false, true}) {
      expect_same(preempted(GetParam(), in_prompt, take_all), 300);
    }
  }
}

TEST_P(Promise3, Joined) {
  expect_same(joined_prefill(GetParam(), 0));
  expect_same(joined_prefill(GetParam(), 3));
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const char* model : {"llama", "llama3", "qwen2", "qwen3"}) {
    out.push_back({model, WeightType::kF32, "ref", 1});
    for (const int threads : {1, 2, 3}) out.push_back({model, WeightType::kF32, "cpu", threads});
  }
  for (const char* model : {"llama-bf16", "llama3-bf16", "qwen2-bf16", "qwen3-bf16"}) {
    out.push_back({model, WeightType::kBF16, "ref", 1});
    for (const int threads : {1, 2, 3}) out.push_back({model, WeightType::kBF16, "cpu", threads});
  }
  for (const int threads : {1, 2, 3}) {
    out.push_back({"llama", WeightType::kF32, "cpu", threads, {}, KvType::kInt8});
  }
  out.push_back({"qwen3-bf16", WeightType::kBF16, "cpu", 2, {}, KvType::kInt8});
  return out;
}

std::vector<Case> cpu_cases() {
  std::vector<Case> out = cases();
  std::erase_if(out, [](const Case& given) { return given.backend == std::string("ref"); });
  return out;
}

std::string name_of(const testing::TestParamInfo<Case>& instance) {
  std::string name = std::string(instance.param.model) + "_" + instance.param.backend + "_" +
                     std::to_string(instance.param.threads);
  if (instance.param.kv_type == KvType::kInt8) name += "_int8";
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Goldens, Promise3, testing::ValuesIn(cases()), name_of);
INSTANTIATE_TEST_SUITE_P(Goldens, Promise3PerSequence, testing::ValuesIn(cpu_cases()), name_of);

// Three threads are more than the golden models have KV heads: what a decode reads is folded by
// several of them, as soon as it is longer than a fold range.
TEST(Promise3Split, RangesAreFoldedByMoreThreadsThanHeads) {
  for (const int threads : {2, 3}) {
    const Case given{"llama", WeightType::kF32, "cpu", threads};
    Rig rig(options_of(given), [](std::unique_ptr<ops::Backend> inner) {
      return std::make_unique<ops::PassingBackend>(std::move(inner));
    });
    const ops::Backend& backend = *rig.core().parts().backend;
    const auto tape = rig.submit(target(), greedy(kAnswer));
    rig.step();  // a whole slice within the first range
    const int64_t unsplit = backend.scratch_bytes();
    rig.run();
    // Only partial results, which only split work has, can have taken more.
    EXPECT_EQ(backend.scratch_bytes() > unsplit, threads == 3);
    const Diff diff = compare(*tape, base_of(given));
    EXPECT_EQ(diff.different, 0);
    EXPECT_EQ(diff.compared, static_cast<int>(kPrompt) + kAnswer - 1);
  }
}

// The same comparisons over a backend that folds in another order must fail; were they to pass,
// they would pass for anything.
TEST(Promise3Canary, AnotherFoldIsSeen) {
  for (const char* backend : {"ref", "cpu"}) {
    const Case broken{"llama", WeightType::kF32, backend, 1, FoldCut::kNodes};
    const Take again = alone(broken, target(), greedy(kAnswer));
    EXPECT_EQ(compare(again, base_of(broken)).different, 0);  // it is wrong, not random
    EXPECT_GT(warm(broken).different, 0);
    EXPECT_GT(warm_in_part(broken).different, 0);
    EXPECT_GT(in_company(broken, 32, AttentionPartition::kTwoPhase).different, 0);
    EXPECT_GT(forked(broken).different, 0);
    EXPECT_GT(preempted(broken, false, false).different, 0);
    EXPECT_GT(joined_prefill(broken, 0).different, 0);
  }
}

TEST(Promise3Canary, AnotherCutIsSeen) {
  for (const char* backend : {"ref", "cpu"}) {
    const Case broken{"llama", WeightType::kF32, backend, 1, FoldCut::kStepsToo};
    const Take again = alone(broken, target(), greedy(kAnswer));
    EXPECT_EQ(compare(again, base_of(broken)).different, 0);
    EXPECT_GT(resliced(broken, 64).different, 0);
    EXPECT_GT(preempted(broken, true, true).different, 0);
    EXPECT_GT(joined_prefill(broken, 3).different, 0);
  }
}

}  // namespace
}  // namespace coppice::engine
