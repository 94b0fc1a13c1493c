// Promise 3 in gated tiers: what a gate drops, and with it every bit, is the same in every kind of
// company and cut, from whatever boundary a hit starts and whatever overlays were freed. Each
// condition first asserts that it happened, and that tokens were dropped. The canaries at the end
// show that the comparison can fail.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>

#include "promise3_gated_case.h"

namespace coppice::engine {
namespace {

// --- the conditions: the target in some company or cut, against itself cold and alone

Diff against_base(const Case& given, Tape& tape) {
  expect_dropped(given, tape.take().result.usage);
  return compare(tape, base_of(given));
}

Diff finish(const Case& given, Rig& rig, int64_t least_cached, int64_t most_cached,
            Request request) {
  const auto tape = rig.submit(std::move(request));
  rig.run();
  rig.check();
  EXPECT_GE(tape->take().result.usage.cached_tokens, least_cached);
  EXPECT_LE(tape->take().result.usage.cached_tokens, most_cached);
  return against_base(given, *tape);
}

Diff warm(const Case& given) {
  Rig rig = rig_of(given);
  run(rig, request_of(target(given)));
  const auto prompt = static_cast<int64_t>(prompt_of(given));
  return finish(given, rig, prompt - 1, prompt - 1, request_of(target(given)));
}

// Hits end where others parted, or at the grid: what lies between is evaluated again.
Diff warm_in_part(const Case& given) {
  Rig rig = rig_of(given);
  for (const size_t shared : {size_t{333}, size_t{201}, size_t{480}}) {
    run(rig, request_of(joined(first_of(target(given), shared), noise(50, 40)), greedy(2)));
  }
  return finish(given, rig, 201, 333, request_of(target(given)));
}

// Boundaries that a request names are where later ones start; they change nothing else.
Diff from_a_named_boundary(const Case& given) {
  Rig rig = rig_of(given);
  Request other = request_of(joined(first_of(target(given), 450), noise(51, 40)), greedy(2));
  other.boundaries = {17, 437, 100};
  run(rig, other);
  Request request = request_of(target(given));
  request.boundaries = {444, 590};
  return finish(given, rig, 437, 437, request);
}

Diff resliced(const Case& given, int32_t slice) {
  EngineOptions o = options_of(given);
  o.slice = slice;
  Rig rig = rig_of(given, o);
  const auto tape = rig.submit(request_of(target(given)));
  rig.run();
  EXPECT_EQ(rig.core().stats().longest_slice, slice);
  return against_base(given, *tape);
}

// Requests that share the target's beginning at eight different lengths.
std::vector<TokenId> companion(const Case& given, uint32_t i) {
  return joined(first_of(target(given), 190 + i % 8 * 47), noise(100 + i, 13 + i % 7));
}

const Take& companion_alone(const Case& given, uint32_t i) {
  static std::map<std::pair<decltype(given.key()), uint32_t>, Take> made;
  const auto [at, fresh] = made.try_emplace({given.key(), i});
  if (fresh) at->second = alone(given, request_of(companion(given, i), greedy(2 * kAnswer)));
  return at->second;
}

// `company` requests in one step; some of the others are compared too.
Diff in_company(const Case& given, uint32_t company, AttentionPartition partition) {
  EngineOptions o = options_of(given);
  o.attention = partition;
  Rig rig = rig_of(given, o);
  std::vector<std::shared_ptr<Tape>> tapes;
  // Long enough answers that the first still run when the last has been prefilled.
  for (uint32_t i = 1; i < company; ++i) {
    tapes.push_back(rig.submit(companion(given, i), greedy(2 * kAnswer)));
  }
  tapes.push_back(rig.submit(target(given), greedy(2 * kAnswer)));
  rig.run();
  EXPECT_EQ(rig.core().stats().max_step_sequences, company);
  Diff diff = against_base(given, *tapes.back());
  for (uint32_t i = 3; i < company; i += 9) {
    diff += compare(*tapes[i - 1], companion_alone(given, i));
  }
  return diff;
}

// Each choice against the same choice where none is forked from another: one lives at a time.
Diff forked(const Case& given) {
  Sampling s = greedy(kAnswer);
  s.n = 3;
  s.temperature = 1.5;
  s.seed = 11;
  EngineOptions one = options_of(given);
  one.max_live = 1;
  Rig rig = rig_of(given), apart = rig_of(given, one);
  const auto tape = rig.submit(request_of(target(given), s));
  const auto base = apart.submit(request_of(target(given), s));
  rig.run();
  apart.run();
  EXPECT_GT(rig.core().stats().max_step_sequences, 2);
  EXPECT_EQ(apart.core().stats().max_step_sequences, 1);
  Diff diff;
  std::set<std::vector<TokenId>> different;
  for (int32_t choice = 0; choice < s.n; ++choice) {
    const Take& take = tape->take(choice);
    const auto prompt = static_cast<int64_t>(prompt_of(given));
    EXPECT_EQ(take.result.usage.cached_tokens, choice == 0 ? 0 : prompt);
    EXPECT_EQ(take.tokens, base->take(choice).tokens);
    different.insert(take.tokens);
    diff += compare(take, base->take(choice));
    // Where generated tokens are decided like any other, an answer is what its text is.
    if (!gate_of(given.gate).decode_gate) continue;
    diff += compare(take, alone(given, request_of(joined(target(given), take.tokens), greedy(1))));
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
  rig.submit(joined(first_of(target(given), 250), noise(60, 30)), greedy(40));
  const auto tape = rig.submit(request_of(target(given)));
  const Take& take = tape->take();
  while (take.logits.size() < 150 || (!in_prompt && take.tokens.size() < 5)) rig.step();
  EXPECT_LE(take.tokens.size(), in_prompt ? 0u : 5u);
  Core& core = rig.core();
  const int64_t tokens = core.stats().tokens_held;
  while (core.stats().preemptions == 0 || core.stats().tokens_held == tokens) {
    EXPECT_TRUE(core.set_budget(core.stats().bytes_held - core.stats().page_bytes));
  }
  if (take_all) core.flush();
  EXPECT_TRUE(core.set_budget(*o.kv_budget));
  rig.run();
  rig.check();
  EXPECT_GE(take.result.preemptions, 1);
  // What was taken was evaluated again.
  EXPECT_GT(take.result.usage.evaluated_tokens,
            static_cast<int64_t>(prompt_of(given)) - 250 + kAnswer);
  return against_base(given, *tape);
}

// Two equal prompts at once; `cancel_after` steps later the writer goes (0: never).
Diff joined_prefill(const Case& given, int cancel_after) {
  EngineOptions o = options_of(given);
  o.slice = 100;
  Rig rig = rig_of(given, o);
  const auto first = rig.submit(request_of(target(given)));
  const auto second = rig.submit(request_of(target(given)));
  for (int i = 0; i < cancel_after; ++i) rig.step();
  if (cancel_after > 0) rig.core().cancel(1);
  rig.run();
  const int64_t written =
      cancel_after > 0 ? cancel_after * 100 : static_cast<int64_t>(prompt_of(given)) - 1;
  EXPECT_EQ(second->take().result.usage.cached_tokens, written);
  Diff diff = against_base(given, *second);
  diff += compare(*first, base_of(given));
  return diff;
}

// Pressure takes every overlay inside the prompt; a request that parts there starts earlier, and
// one that repeats the prompt replays nothing but its last token.
Diff replayed(const Case& given) {
  Rig rig = rig_of(given);
  Request longer = request_of(joined(target(given), noise(52, 60)));
  longer.boundaries = {100, 200, 300, 400};
  run(rig, longer);
  Core& core = rig.core();
  const EngineStats full = core.stats();
  EXPECT_GE(full.overlays, 5);
  while (core.stats().overlays > 0) {
    EXPECT_TRUE(core.set_budget(core.stats().bytes_held - core.stats().page_bytes));
  }
  EXPECT_EQ(core.stats().overlays_freed, full.overlays);
  EXPECT_EQ(core.stats().tokens_held, full.tokens_held);
  EXPECT_LT(core.stats().bytes_held, full.bytes_held);
  EXPECT_TRUE(core.set_budget(*options_of(given).kv_budget));
  Diff diff = finish(given, rig, 0, 0, request_of(target(given)));
  // What it rewrote is held once; there are overlays again, and an answer that others may join.
  const int64_t answer = gate_of(given.gate).decode_gate ? kAnswer - 1 : 0;
  EXPECT_EQ(core.stats().tokens_held, full.tokens_held + answer);
  EXPECT_LT(core.stats().bytes_held, full.bytes_held * 3 / 2);
  const auto prompt = static_cast<int64_t>(prompt_of(given));
  return diff += finish(given, rig, prompt - 1, prompt - 1, request_of(target(given)));
}

class Promise3Gated : public testing::TestWithParam<Case> {
 protected:
  static void expect_same(const Diff& diff, int at_least = kAnswer) {
    EXPECT_EQ(diff.different, 0);
    EXPECT_GE(diff.compared, at_least);
  }
  int all() const { return static_cast<int>(prompt_of(GetParam())) + kAnswer - 1; }
};

TEST_P(Promise3Gated, ColdAlone) {
  Rig rig = rig_of(GetParam());
  const auto tape = rig.submit(request_of(target(GetParam())));
  rig.run();
  EXPECT_EQ(tape->take().tokens, base_of(GetParam()).tokens);
  expect_same(against_base(GetParam(), *tape), all());
}

TEST_P(Promise3Gated, HoldsLessThanTierOff) {
  Rig rig = rig_of(GetParam());
  Request off = request_of(target(GetParam()));
  off.kv_tier = KvTier::kOff;
  const Result all = run(rig, off);
  const int64_t all_held = rig.core().stats().bytes_held;
  rig.core().flush();
  const Result result = run(rig, request_of(target(GetParam())));
  const double most = gate_of(GetParam().gate).bytes;
  expect_dropped(GetParam(), result.usage);
  EXPECT_LT(static_cast<double>(result.usage.kv_bytes),
            most * static_cast<double>(all.usage.kv_bytes));
  EXPECT_LT(static_cast<double>(rig.core().stats().bytes_held),
            most * static_cast<double>(all_held));
  rig.expect_all_free();
}

TEST_P(Promise3Gated, Warm) { expect_same(warm(GetParam())); }

TEST_P(Promise3Gated, WarmInPart) { expect_same(warm_in_part(GetParam()), kAnswer + 270); }

TEST_P(Promise3Gated, FromANamedBoundary) {
  expect_same(from_a_named_boundary(GetParam()), kAnswer + 160);
}

TEST_P(Promise3Gated, Resliced) {
  for (const int32_t slice : {1, 7, 64, 512}) expect_same(resliced(GetParam(), slice), all());
}

TEST_P(Promise3Gated, InABatchOf64) {
  expect_same(in_company(GetParam(), 64, AttentionPartition::kTwoPhase), 7 * kAnswer);
}

TEST_P(Promise3Gated, InABatchOf32PerSequence) {
  expect_same(in_company(GetParam(), 32, AttentionPartition::kPerSequence), 4 * kAnswer);
}

TEST_P(Promise3Gated, Forked) { expect_same(forked(GetParam()), 3 * (kAnswer - 1)); }

TEST_P(Promise3Gated, PreemptedAndResumed) {
  for (const bool in_prompt : {false, true}) {
    for (const bool take_all : {false, true}) {
      expect_same(preempted(GetParam(), in_prompt, take_all), 300);
    }
  }
}

TEST_P(Promise3Gated, Joined) {
  expect_same(joined_prefill(GetParam(), 0));
  expect_same(joined_prefill(GetParam(), 3));
}

TEST_P(Promise3Gated, OverlaysFreedAndReplayed) { expect_same(replayed(GetParam()), all()); }

// Tokens that no gate may drop: other keys, other bits, and the same ones cold, warm and resliced.
TEST_P(Promise3Gated, ExactRanges) {
  Request request = request_of(target(GetParam()));
  request.exact = {{400, 410}, {100, 250}};
  const Take cold = alone(GetParam(), request);
  const Usage& plain = base_of(GetParam()).result.usage;
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_GT(cold.result.usage.keep_ratio[layer], plain.keep_ratio[layer]);
  }
  EXPECT_GT(compare(cold, base_of(GetParam())).different, 0);
  EngineOptions o = options_of(GetParam());
  o.slice = 77;
  Rig rig = rig_of(GetParam(), o);
  run(rig, request_of(target(GetParam())));
  for (const bool again : {false, true}) {
    const auto tape = rig.submit(request);
    rig.run();
    const int64_t cached = tape->take().result.usage.cached_tokens;
    if (again) {
      EXPECT_EQ(cached, static_cast<int64_t>(prompt_of(GetParam())) - 1);
    } else {
      EXPECT_LE(cached, 100);
    }
    EXPECT_EQ(tape->take().tokens, cold.tokens);
    expect_same(compare(*tape, cold));
  }
}

constexpr WeightType kF32 = WeightType::kF32, kBF16 = WeightType::kBF16;

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const char* gate : {"random", "point", "causal"})
    out.push_back({"llama", kF32, "ref", 1, gate});
  for (const int threads : {1, 2}) {
    for (const char* gate : {"random", "point", "causal", "prompts", "wide"}) {
      out.push_back({"llama", kF32, "cpu", threads, gate});
    }
    out.push_back({"qwen2", kF32, "cpu", threads, "causal"});
    out.push_back({"llama3", kF32, "cpu", threads, "point"});
    for (const char* gate : {"random", "causal"}) {
      out.push_back({"qwen3-bf16", kBF16, "cpu", threads, gate});
      out.push_back({"llama", kF32, "cpu", threads, gate, KvType::kInt8});
    }
    out.push_back({"llama-bf16", kBF16, "cpu", threads, "point"});
    out.push_back({"qwen3-bf16", kBF16, "cpu", threads, "wide", KvType::kInt8});
  }
  return out;
}

std::string name_of(const testing::TestParamInfo<Case>& instance) {
  const Case& c = instance.param;
  std::string name =
      std::string(c.model) + "_" + c.gate + "_" + c.backend + "_" + std::to_string(c.threads);
  if (c.kv_type == KvType::kInt8) name += "_int8";
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

INSTANTIATE_TEST_SUITE_P(Goldens, Promise3Gated, testing::ValuesIn(cases()), name_of);

// With decode_gate off an answer is nobody's but its writer's: its text joins the prompt alone.
TEST(Promise3GatedPrompts, AnAnswerIsNotJoined) {
  const Case given{"llama", kF32, "cpu", 1, "prompts"};
  Rig rig = rig_of(given);
  const Result answer = run(rig, request_of(target(given)));
  const std::vector<TokenId> longer = joined(joined(target(given), answer.tokens), noise(53, 20));
  const auto tape = rig.submit(request_of(longer));
  rig.run();
  EXPECT_EQ(tape->take().result.usage.cached_tokens, static_cast<int64_t>(prompt_of(given)));
  const Diff diff = compare(*tape, alone(given, request_of(longer)));
  EXPECT_EQ(diff.different, 0);
  EXPECT_GE(diff.compared, kAnswer);
}

// Other decisions are other bits: a gate of another seed, and tier off.
TEST(Promise3GatedCanary, WhatIsDroppedIsSeen) {
  const Case given{"llama", kF32, "cpu", 1, "random"};
  EngineOptions o = options_of(given);
  o.gate += ",seed=2";
  for (const KvTier tier : {KvTier::kOff, KvTier::kNormal}) {
    Rig rig(o);
    Request request = request_of(target(given));
    request.kv_tier = tier;
    const auto tape = rig.submit(request);
    rig.run();
    const Diff diff = compare(*tape, base_of(given));
    EXPECT_GT(diff.different, 500);  // from the first token that is dropped and out of sight
  }
}

// Over a backend that folds in another order the same comparisons must fail.
TEST(Promise3GatedCanary, AnotherFoldIsSeen) {
  for (const char* gate : {"random", "causal"}) {
    const Case broken{"llama", kF32, "cpu", 1, gate, {}, FoldCut::kNodes};
    const Take again = alone(broken, request_of(target(broken)));
    EXPECT_EQ(compare(again, base_of(broken)).different, 0);  // it is wrong, not random
    EXPECT_GT(warm_in_part(broken).different, 0);
    EXPECT_GT(from_a_named_boundary(broken).different, 0);
    EXPECT_GT(in_company(broken, 32, AttentionPartition::kTwoPhase).different, 0);
    EXPECT_GT(forked(broken).different, 0);
    EXPECT_GT(preempted(broken, false, false).different, 0);
    EXPECT_GT(replayed(broken).different, 0);
  }
}

TEST(Promise3GatedCanary, AnotherCutIsSeen) {
  const Case broken{"llama", kF32, "cpu", 1, "causal", {}, FoldCut::kStepsToo};
  const Take again = alone(broken, request_of(target(broken)));
  EXPECT_EQ(compare(again, base_of(broken)).different, 0);
  EXPECT_GT(resliced(broken, 64).different, 0);
  EXPECT_GT(preempted(broken, true, true).different, 0);
  EXPECT_GT(joined_prefill(broken, 3).different, 0);
}

}  // namespace
}  // namespace coppice::engine
