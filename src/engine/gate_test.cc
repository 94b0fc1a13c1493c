// Requests in tiers: what is refused, what is shared, what the receipts say, and how many fit.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <string>

#include "engine/test_harness.h"
#include "model/gate_file.h"
#include "model/test_files.h"

namespace coppice::engine {
namespace {

constexpr const char* kRandom = "policy:random,keep=0.25,window=16";

EngineOptions options(const std::string& gate = kRandom) {
  EngineOptions out = golden_options("llama");
  out.max_live = 8;
  out.gate = gate;
  return out;
}

std::vector<TokenId> prompt_of(uint32_t seed, size_t count) {
  return token_noise(seed, count, 3, 320);
}

Request request_of(std::vector<TokenId> prompt, std::optional<KvTier> tier = {},
                   int32_t answer = 4) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = greedy(answer);
  request.kv_tier = tier;
  return request;
}

Result run(Rig& rig, Request request) {
  const auto tape = rig.submit(std::move(request));
  rig.run();
  return tape->take().result;
}

void expect_error(const std::optional<Error>& error, std::initializer_list<const char*> parts,
                  ErrorCode code = ErrorCode::kInvalidArgument) {
  ASSERT_TRUE(error);
  EXPECT_EQ(error->code, code);
  for (const char* part : parts) {
    EXPECT_NE(error->message.find(part), std::string::npos) << error->message;
  }
}

std::optional<Error> open_error(const EngineOptions& o) {
  const auto engine = Engine::open(o);
  return engine ? std::nullopt : std::optional(engine.error());
}

// --- refusals

TEST(Gate, ATierWithoutAGateIsRefused) {
  Rig rig(options(""));
  for (const KvTier tier : {KvTier::kMild, KvTier::kNormal, KvTier::kHard}) {
    expect_error(run(rig, request_of(prompt_of(1, 20), tier)).error,
                 {std::string(kv_tier_name(tier)).c_str(), "--gate"});
  }
  EXPECT_FALSE(run(rig, request_of(prompt_of(1, 20), KvTier::kOff)).error);
  EXPECT_FALSE(run(rig, request_of(prompt_of(1, 20))).error);
  EngineOptions o = options("");
  o.kv_tier = KvTier::kHard;
  expect_error(open_error(o), {"--kv-tier hard", "--gate"});
}

TEST(Gate, TheEnginesTierIsThatOfRequestsThatBringNone) {
  for (const bool off : {false, true}) {
    EngineOptions o = options();
    if (off) o.kv_tier = KvTier::kOff;
    Rig rig(o);
    EXPECT_EQ(run(rig, request_of(prompt_of(1, 100))).usage.keep_ratio.empty(), off);
  }
}

TEST(Gate, ATierThatLosesTooMuchIsRefusedUnlessForced) {
  const model::TemporaryDirectory directory;
  // Calibrated losses: mild 0.25, normal 0.5, hard 2.0.
  EngineOptions o = options(random_gate_file(directory.path(), "llama", model::GateKind::kPoint));
  const auto served = [&](KvTier tier) {
    Rig rig(o);
    return run(rig, request_of(prompt_of(1, 40), tier)).error;
  };
  EXPECT_FALSE(served(KvTier::kHard));  // no more than the limit
  o.gate_max_loss = 1.9;
  expect_error(served(KvTier::kHard), {"kv_tier hard", "2.00", "--gate-max-loss 1.90"});
  EXPECT_FALSE(served(KvTier::kNormal));
  EXPECT_FALSE(served(KvTier::kOff));
  o.gate_force = true;
  EXPECT_FALSE(served(KvTier::kHard));
  o.gate_force = false;
  // Requests that bring no tier must have one.
  o.gate_max_loss = 0.3;
  expect_error(open_error(o), {"--gate", "kv_tier normal", "0.50"});
  o.kv_tier = KvTier::kMild;
  EXPECT_FALSE(open_error(o));
  o.gate_max_loss = -1;
  expect_error(open_error(o), {"--gate-max-loss"});
}

TEST(Gate, AGateOfAnotherBaseIsRefusedUnlessForced) {
  const model::TemporaryDirectory directory;
  EngineOptions o = options(
      random_gate_file(directory.path(), "llama", model::GateKind::kPoint,
                       [](model::GateHeader& header) { header.base = "0123456789abcdef"; }));
  expect_error(open_error(o), {o.gate.c_str(), "0123456789abcdef"}, ErrorCode::kCorrupt);
  o.gate_force = true;
  Rig rig(o);
  EXPECT_FALSE(run(rig, request_of(prompt_of(1, 60))).usage.keep_ratio.empty());
}

TEST(Gate, WhatCannotBeOpenedOrServedIsNamed) {
  expect_error(open_error(options("/nowhere/gate.safetensors")), {"/nowhere/gate.safetensors"},
               ErrorCode::kNotFound);
  expect_error(open_error(options("policy:h2o")), {"policy:h2o", "random"});
  const model::TemporaryDirectory directory;
  expect_error(
      open_error(options(random_gate_file(directory.path(), "llama", model::GateKind::kGlobal))),
      {"global"}, ErrorCode::kUnsupported);
}

TEST(Gate, RangesAndBoundariesOutsideThePromptAreRefused) {
  Rig rig(options());
  const auto refused = [&](std::vector<TokenRange> exact, std::vector<int64_t> boundaries) {
    Request request = request_of(prompt_of(1, 50));
    request.exact = std::move(exact);
    request.boundaries = std::move(boundaries);
    return run(rig, request).error;
  };
  expect_error(refused({{0, 5}, {40, 51}}, {}), {"exact[1]", "[40, 51)", "50"});
  expect_error(refused({{-1, 5}}, {}), {"exact[0]", "[-1, 5)"});
  expect_error(refused({{7, 6}}, {}), {"exact[0]", "[7, 6)"});
  expect_error(refused({}, {3, 51}), {"boundaries[1]", "51", "50"});
  expect_error(refused({}, {-1}), {"boundaries[0]", "-1"});
  expect_error(refused({}, std::vector<int64_t>(257, 7)), {"boundaries", "257", "256"});
  EXPECT_FALSE(refused({{0, 0}, {10, 50}, {5, 20}}, {50, 0, 20, 20}));
  EXPECT_EQ(rig.core().stats().finished, 1);  // the others never came in
}

// --- what is shared

TEST(Gate, TiersShareNothing) {
  Rig rig(options());
  for (const KvTier tier : {KvTier::kOff, KvTier::kMild, KvTier::kNormal, KvTier::kHard}) {
    EXPECT_EQ(run(rig, request_of(prompt_of(1, 80), tier)).usage.cached_tokens, 0);
    EXPECT_EQ(run(rig, request_of(prompt_of(1, 80), tier)).usage.cached_tokens, 79);
  }
  Request salted = request_of(prompt_of(1, 80), KvTier::kMild);
  salted.cache_salt = "a";
  EXPECT_EQ(run(rig, salted).usage.cached_tokens, 0);
}

TEST(Gate, ScopesTellGatesApart) {
  const model::TemporaryDirectory directory, second;
  Rig a(options()), again(options()), seeded(options("policy:random,keep=0.25,window=16,seed=2"));
  Rig file(options(random_gate_file(directory.path(), "llama", model::GateKind::kPoint)));
  Rig prompts(options(random_gate_file(second.path(), "llama", model::GateKind::kPoint,
                                       [](auto& header) { header.decode_gate = false; })));
  Rig none(options(""));
  EXPECT_EQ(a.scope(KvTier::kHard), again.scope(KvTier::kHard));
  const std::set<kv::Scope> apart{a.scope(KvTier::kHard),
                                  a.scope(KvTier::kMild),
                                  seeded.scope(KvTier::kHard),
                                  file.scope(KvTier::kHard),
                                  prompts.scope(KvTier::kHard),
                                  a.scope(KvTier::kOff),
                                  a.scope(KvTier::kHard, KvThinning::kAllow)};
  EXPECT_EQ(apart.size(), 7u);
  EXPECT_EQ(a.scope(KvTier::kOff), none.scope(KvTier::kOff));
  EXPECT_EQ(a.scope(KvTier::kOff), a.scope(KvTier::kOff, KvThinning::kAllow));
}

TEST(Gate, PinsAreOfATier) {
  Rig rig(options());
  const auto prompt = prompt_of(1, 100);
  run(rig, request_of(prompt, KvTier::kHard));
  Core& core = rig.core();
  EXPECT_EQ(core.pin(rig.scope(KvTier::kMild), prompt, 0)->tokens, 0);
  const auto pin = core.pin(rig.scope(KvTier::kHard), prompt, 0);
  ASSERT_TRUE(pin);
  EXPECT_EQ(pin->tokens, 99);  // to the boundary before the last token
  core.flush();
  rig.check();
  const Result warm = run(rig, request_of(prompt, KvTier::kHard));
  EXPECT_EQ(warm.usage.cached_tokens, 99);
  EXPECT_LT(warm.usage.keep_ratio[0], 0.5);
  EXPECT_TRUE(core.unpin(pin->id));
  rig.expect_all_free();
}

TEST(Gate, TheEnginePinsInTheTierItIsAsked) {
  const auto engine = Engine::open(options());
  ASSERT_TRUE(engine);
  ASSERT_TRUE((*engine)->submit(request_of(prompt_of(1, 60), KvTier::kMild), nullptr));
  (*engine)->run();
  EXPECT_EQ((*engine)->pin(prompt_of(1, 60), "", 0.0)->tokens, 0);  // normal
  EXPECT_EQ((*engine)->pin(prompt_of(1, 60), "", 0.0, KvTier::kMild)->tokens, 59);
  EXPECT_NE((*engine)->info().gate.find("random"), std::string::npos);
}

TEST(Gate, PinsKnowExactTokens) {
  const auto engine = Engine::open(options());
  ASSERT_TRUE(engine);
  Request request = request_of(prompt_of(1, 60), KvTier::kMild);
  request.exact = {{0, 10}, {5, 20}};
  ASSERT_TRUE((*engine)->submit(request, nullptr));
  (*engine)->run();
  EXPECT_EQ((*engine)->pin(prompt_of(1, 60), "", 0.0, KvTier::kMild)->tokens, 0);
  EXPECT_EQ((*engine)->pin(prompt_of(1, 60), "", 0.0, KvTier::kMild, {{0, 20}})->tokens, 59);
  const auto beyond = (*engine)->pin(prompt_of(1, 60), "", 0.0, KvTier::kMild, {{0, 61}});
  ASSERT_FALSE(beyond);
  EXPECT_NE(beyond.error().message.find("exact[0]"), std::string::npos);
}

TEST(Gate, ABudgetThatPinsOutgrowAsOthersLeaveIsAnError) {
  EngineOptions o = options();
  o.slice = 250;
  Rig rig(o);
  const auto pinned = prompt_of(1, 500);
  run(rig, request_of(pinned, KvTier::kHard));
  Core& core = rig.core();
  ASSERT_EQ(core.pin(rig.scope(KvTier::kHard), pinned, 0)->tokens, 499);
  const std::vector<TokenId> half(pinned.begin(), pinned.begin() + 300);
  const auto tape = rig.submit(request_of(joined(half, prompt_of(2, 100)), KvTier::kHard));
  rig.step();  // 250 tokens of what is pinned, replayed
  ASSERT_EQ(core.stats().live, 1);
  const Status set = core.set_budget(core.parts().cache->pinned_bytes());
  EXPECT_EQ(core.stats().live, 0);
  EXPECT_LE(core.stats().bytes_held, core.stats().kv_budget);
  if (!set) {
    EXPECT_EQ(set.error().code, ErrorCode::kTooLarge);
    EXPECT_NE(set.error().message.find("unpin"), std::string::npos);
  }
  rig.check();
  ASSERT_TRUE(core.set_budget(o.kv_budget.value()));
  rig.run();
  EXPECT_FALSE(tape->take().result.error);
}

// --- receipts

TEST(Gate, ReceiptsSayWhatWasKept) {
  EngineOptions o = options();
  o.slice = 64;  // the peak comes when most is decided: a step holds pages for any decision
  Rig rig(o);
  const auto prompt = prompt_of(1, 400);
  const Result off = run(rig, request_of(prompt, KvTier::kOff));
  EXPECT_TRUE(off.usage.keep_ratio.empty());
  EXPECT_EQ(off.kv.keep_ratio, 1.0);
  EXPECT_GT(off.usage.kv_bytes, 0);
  rig.core().flush();
  const Result hard = run(rig, request_of(prompt, KvTier::kHard));
  ASSERT_EQ(hard.usage.keep_ratio.size(), 2u);
  for (const double ratio : hard.usage.keep_ratio) {
    EXPECT_GT(ratio, 0.18);
    EXPECT_LT(ratio, 0.35);
  }
  EXPECT_GT(hard.kv.keep_ratio, 0.18);
  EXPECT_LT(hard.kv.keep_ratio, 0.35);
  EXPECT_LT(hard.usage.kv_bytes, off.usage.kv_bytes / 2);
  EXPECT_LT(hard.kv.bytes_held, off.kv.bytes_held);
  // Of what no gate may drop everything is kept.
  Request exact = request_of(prompt, KvTier::kHard);
  exact.exact = {{0, 400}};
  for (const double ratio : run(rig, exact).usage.keep_ratio) EXPECT_GT(ratio, 0.98);
}

void expect_receipt(const Usage& usage) {
  ASSERT_EQ(usage.keep_ratio.size(), 2u);
  for (const double ratio : usage.keep_ratio) {
    EXPECT_GT(ratio, 0.1);
    EXPECT_LT(ratio, 0.4);
  }
  EXPECT_GT(usage.kv_bytes, 0);
}

// They never have a place in the cache of their own.
TEST(Gate, ChoicesThatEndWithTheirFirstTokenSayWhatWasKeptOfTheirPrompt) {
  for (const bool stopped : {false, true}) {
    Rig rig(options());
    Request request = request_of(prompt_of(1, 300), {}, stopped ? 6 : 1);
    request.sampling.n = 3;
    const auto tape = std::make_shared<Tape>();
    tape->judge = [](const TokenEvent& event) {
      return event.choice == 1 ? Verdict::kStop : Verdict::kContinue;
    };
    rig.submit(request, tape);
    rig.run();
    for (int32_t choice = 0; choice < 3; ++choice) {
      const Result& result = tape->take(choice).result;
      expect_receipt(result.usage);
      EXPECT_EQ(result.usage.cached_tokens, choice == 0 ? 0 : 300);
      EXPECT_EQ(result.tokens.size(), stopped && choice != 1 ? 6u : 1u);
    }
    // The choice that stops has read the prompt and no more.
    const Usage& usage = tape->take(1).result.usage;
    Rig alone(options());
    EXPECT_EQ(usage.keep_ratio, run(alone, request_of(prompt_of(1, 300), {}, 1)).usage.keep_ratio);
  }
}

TEST(Gate, WhoeverIsCancelledSaysWhatWasKeptOfWhatItRead) {
  EngineOptions o = options();
  o.slice = 64;
  o.max_live = 2;
  Rig rig(o);
  Core& core = rig.core();
  Request request = request_of(prompt_of(1, 300), {}, 6);
  request.sampling.n = 3;
  const auto reading = rig.submit(request);
  const auto beside = rig.submit(request_of(prompt_of(2, 300)));
  const auto waiting = rig.submit(request_of(prompt_of(3, 300)));
  for (int i = 0; i < 3; ++i) rig.step();
  ASSERT_TRUE(core.set_budget(core.parts().cache->worst_case_bytes(16)));
  ASSERT_EQ(core.stats().preemptions, 2);  // who lived waits now too
  for (RequestId id = 1; id <= 3; ++id) core.cancel(id);
  for (int32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(reading->take(choice).result.finish_reason, FinishReason::kCancelled);
    expect_receipt(reading->take(choice).result.usage);
  }
  expect_receipt(beside->take().result.usage);
  EXPECT_TRUE(waiting->take().result.usage.keep_ratio.empty());  // it has read nothing
  EXPECT_EQ(waiting->take().result.usage.kv_bytes, 0);
  rig.expect_all_free();
}

TEST(Gate, OverlaysOfInnerBoundariesAreCounted) {
  Rig rig(options());
  run(rig, request_of(prompt_of(1, 300)));
  const int64_t without = rig.core().stats().overlays;
  Request request = request_of(prompt_of(2, 300));
  request.boundaries = {50, 100, 150};
  run(rig, request);
  EXPECT_EQ(rig.core().stats().overlays, 2 * without + 3);
  EXPECT_EQ(rig.core().stats().overlays_freed, 0);
  rig.expect_all_free();
  EXPECT_EQ(rig.core().stats().overlays, 0);
}

TEST(Gate, ChoicesShareTheirPrompt) {
  Rig rig(options());
  Request request = request_of(prompt_of(1, 300), {}, 6);
  request.sampling.n = 4;
  request.sampling.temperature = 1.5;
  request.sampling.seed = 3;
  const auto tape = rig.submit(request);
  rig.run();
  for (int32_t choice = 0; choice < 4; ++choice) {
    const Usage& usage = tape->take(choice).result.usage;
    EXPECT_EQ(tape->take(choice).tokens.size(), 6u);
    EXPECT_EQ(usage.cached_tokens, choice == 0 ? 0 : 300);
    EXPECT_EQ(usage.evaluated_tokens, choice == 0 ? 305 : 5);
    EXPECT_LT(usage.keep_ratio[0], 0.4);
  }
  EXPECT_EQ(rig.core().stats().max_step_sequences, 4);
  rig.expect_all_free();
}

TEST(Gate, AFollowerGoesOnWhereACancelledWriterStopped) {
  EngineOptions o = options();
  o.slice = 64;
  Rig alone(o);
  const auto expected = alone.submit(request_of(prompt_of(1, 300)));
  alone.run();
  for (int steps = 0; steps <= 7; ++steps) {
    Rig rig(o);
    const auto first = rig.submit(request_of(prompt_of(1, 300)));
    const auto second = rig.submit(request_of(prompt_of(1, 300)));
    for (int i = 0; i < steps; ++i) rig.step();
    rig.core().cancel(1);
    rig.check();
    rig.run();
    EXPECT_EQ(first->take().result.finish_reason, FinishReason::kCancelled);
    EXPECT_EQ(second->take().tokens, expected->take().tokens);
    EXPECT_EQ(second->take().logits.at(299), expected->take().logits.at(299));
    expect_receipt(second->take().result.usage);
    // Nothing held was evaluated again, except the last prompt token.
    const int64_t read = first->take().result.usage.evaluated_tokens;
    EXPECT_EQ(second->take().result.usage.cached_tokens, std::min<int64_t>(read, 299));
    rig.expect_all_free();
  }
}

// --- room

// What it would need if all were kept no longer fits when it comes back; what its gate keeps does.
TEST(Gate, WhoIsSetAsideComesToTheEndThatItHasAlone) {
  constexpr int32_t kAnswer = 1200;
  EngineOptions o = options();
  o.backend = "cpu";
  o.kv_budget = Rig(o).core().parts().cache->worst_case_bytes(700);
  const auto request = [](uint32_t seed) { return request_of(prompt_of(seed, 50), {}, kAnswer); };
  enum class Then { kGoOn, kFlush, kPinned };
  for (const Then then : {Then::kGoOn, Then::kFlush, Then::kPinned}) {
    Rig rig(o);
    uint64_t pin = 0;
    if (then == Then::kPinned) {
      // A little that is pinned for an hour is no reason to wait so long.
      run(rig, request_of(prompt_of(3, 20), {}, 1));
      pin = rig.core().pin(rig.scope(KvTier::kNormal), prompt_of(3, 20), 3600.0)->id;
      ASSERT_NE(pin, 0u);
    }
    const auto older = rig.submit(request(1)), younger = rig.submit(request(2));
    while (rig.step() && rig.core().stats().preemptions == 0) {
    }
    if (then == Then::kFlush) rig.core().flush();  // nothing is left of what it had computed
    for (int i = 0; i < 20000 && rig.step(); ++i) {
    }
    EXPECT_TRUE(pin == 0 || rig.core().unpin(pin));
    EXPECT_GE(younger->take().result.preemptions, 1);
    for (const auto& [tape, seed] : {std::pair(older, 1u), std::pair(younger, 2u)}) {
      Rig alone(o);
      EXPECT_EQ(tape->take().tokens, run(alone, request(seed)).tokens);
      EXPECT_EQ(tape->take().tokens.size(), size_t{kAnswer});
      EXPECT_EQ(tape->unsteady_rows, 0);
    }
    EXPECT_LE(rig.core().stats().peak.bytes_held, *o.kv_budget);
    rig.expect_all_free();
  }
}

// It is let in once it is alone, and ends where the budget does.
TEST(Gate, WhoIsSetAsideAndNoLongerFitsEndsWithLength) {
  Rig rig(options());
  Core& core = rig.core();
  const auto tape = rig.submit(request_of(prompt_of(1, 300), {}, 400));
  while (rig.step() && tape->take().tokens.size() < 200) {
  }
  ASSERT_TRUE(core.set_budget(core.parts().cache->worst_case_bytes(64)));
  rig.run();
  const Result& result = tape->take().result;
  EXPECT_FALSE(result.error);
  EXPECT_EQ(result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(result.preemptions, 1);
  EXPECT_EQ(result.tokens.size(), 200u);
  // Of the little that found room when it came back.
  ASSERT_EQ(result.usage.keep_ratio.size(), 2u);
  for (const double ratio : result.usage.keep_ratio) EXPECT_LT(ratio, 0.9);
  EXPECT_GT(result.usage.kv_bytes, 0);
  rig.expect_all_free();
}

Request elastic_of(std::vector<TokenId> prompt, std::optional<KvTier> tier = {}) {
  Request request = request_of(std::move(prompt), tier);
  request.kv_thinning = KvThinning::kAllow;
  return request;
}

TEST(Gate, WithoutPressureElasticAnswersAreTheStrictOnes) {
  EngineOptions o = options();
  o.prompt_logits = true;
  const auto logits_of = [&](Request request) {
    Rig rig(o);
    request.prompt_logits = true;
    const auto tape = rig.submit(std::move(request));
    rig.run();
    EXPECT_EQ(tape->take().result.usage.thinned_tokens, 0);
    return tape->take().logits;
  };
  EXPECT_EQ(logits_of(elastic_of(prompt_of(1, 300))), logits_of(request_of(prompt_of(1, 300))));
}

// Elastic and strict requests over more prefixes than fit, again and again.
TEST(Gate, ThinningServesThoseWhoAllowItAndNobodyElse) {
  constexpr uint32_t kPrefixes = 8;
  const auto prompt = [](uint32_t prefix, uint32_t end) {
    return joined(prompt_of(prefix, 400), prompt_of(1000 + end, 12));
  };
  EngineOptions o = options();
  o.prompt_logits = true;
  std::vector<std::map<int64_t, uint64_t>> expected;
  for (uint32_t i = 0; i < kPrefixes; ++i) {
    Rig alone(o);
    const auto tape = alone.submit(request_of(prompt(i, i)));
    alone.run();
    expected.push_back(tape->take().logits);
  }
  o.kv_budget = Rig(o).core().parts().cache->worst_case_bytes(1100);
  o.max_live = 2;
  Rig rig(o);
  int64_t thinned = 0;
  for (uint32_t round = 0; round < 4; ++round) {
    for (uint32_t i = 0; i < kPrefixes; ++i) {
      Request elastic = elastic_of(prompt(i, 100 + 10 * round + i));
      elastic.boundaries = {400};
      const auto tape = rig.submit(elastic), strict = rig.submit(request_of(prompt(i, i)));
      rig.run();
      rig.check();
      const Result& result = tape->take().result;
      ASSERT_FALSE(result.error);
      EXPECT_EQ(result.tokens.size(), 4u);
      EXPECT_EQ(result.usage.thinned_tokens > 0, result.usage.kv_epoch > 0);
      EXPECT_LE(result.usage.thinned_tokens, result.usage.cached_tokens);
      thinned += result.usage.thinned_tokens;
      EXPECT_EQ(strict->take().result.usage.thinned_tokens, 0);
      EXPECT_EQ(strict->unsteady_rows, 0);
      for (const auto& [position, hash] : strict->take().logits) {
        ASSERT_EQ(expected[i].at(position), hash) << "position " << position;
      }
    }
  }
  EXPECT_GT(thinned, 8 * 400);
  EXPECT_GT(rig.core().stats().tokens_thinned, 0);
  EXPECT_GT(rig.core().stats().pages_thinned, 0);
  EXPECT_LE(rig.core().stats().peak.bytes_held, *o.kv_budget);
  rig.expect_all_free();
}

TEST(Gate, PinsKeepElasticPrefixesWhole) {
  const auto engine = Engine::open(options());
  ASSERT_TRUE(engine);
  ASSERT_TRUE((*engine)->submit(elastic_of(prompt_of(1, 300)), nullptr));
  ASSERT_TRUE((*engine)->submit(elastic_of(prompt_of(2, 300)), nullptr));
  (*engine)->run();
  EXPECT_EQ((*engine)->pin(prompt_of(1, 300), "", 0.0)->tokens, 0);
  const auto pin = (*engine)->pin(prompt_of(1, 300), "", 0.0, {}, {}, KvThinning::kAllow);
  ASSERT_EQ(pin->tokens, 299);
  ASSERT_TRUE((*engine)->set_budget((*engine)->stats().bytes_held * 6 / 10));
  EXPECT_GT((*engine)->stats().tokens_thinned, 0);
  class Keep : public Observer {
   public:
    void on_finish(const Result& result, std::string_view) override { usage = result.usage; }
    Usage usage;
  };
  ASSERT_TRUE((*engine)->set_budget(*options().kv_budget));
  const auto kept = std::make_shared<Keep>();
  ASSERT_TRUE((*engine)->submit(elastic_of(prompt_of(1, 300)), kept));
  (*engine)->run();
  EXPECT_EQ(kept->usage.cached_tokens, 299);
  EXPECT_EQ(kept->usage.thinned_tokens, 0);
}

// Own tokens enough that what is promised for an answer at worst, whatever the gate will drop, is
// the smaller part of what a request holds.
constexpr size_t kShared = 512, kOwn = 1400;
constexpr int32_t kGenerated = 48;
constexpr int64_t kOff = 14;  // that fit without a gate

// The most requests with so many tokens of their own below a shared prefix that lived at once.
int64_t most_at_once(KvTier tier, int64_t budget) {
  EngineOptions o = options();
  o.backend = "cpu";
  o.kv_budget = budget;
  o.max_live = 64;
  o.max_rows = kOwn + 64;  // a prompt a step beside the decodes: the first outlive the last
  o.slice = kOwn;
  Rig rig(o);
  Request first = request_of(prompt_of(1, kShared), tier);
  first.boundaries = {kShared};
  run(rig, first);
  std::vector<std::shared_ptr<Tape>> tapes;
  for (uint32_t i = 0; i < 40; ++i) {
    tapes.push_back(rig.submit(
        request_of(joined(prompt_of(1, kShared), prompt_of(100 + i, kOwn)), tier, kGenerated)));
  }
  rig.run();
  for (const auto& tape : tapes) EXPECT_EQ(tape->take().tokens.size(), size_t{kGenerated});
  EXPECT_LE(rig.core().stats().peak.bytes_held, budget);
  rig.check();
  return rig.core().stats().max_step_sequences;
}

TEST(Gate, TwiceAsManyRequestsRunInAFixedBudget) {
  EngineOptions o = options();
  o.backend = "cpu";
  const int64_t budget =
      Rig(o).core().parts().cache->worst_case_bytes(kShared + kOff * (kOwn + kGenerated));
  const int64_t off = most_at_once(KvTier::kOff, budget);
  const int64_t gated = most_at_once(KvTier::kNormal, budget);
  EXPECT_GE(off, kOff - 1);
  EXPECT_LE(off, kOff + 1);
  EXPECT_GE(gated, 2 * off) << off;
}

}  // namespace
}  // namespace coppice::engine
