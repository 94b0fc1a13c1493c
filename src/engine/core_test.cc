#include "engine/core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/test_harness.h"

namespace coppice::engine {
namespace {

constexpr TokenId kVocab = 320;

std::vector<TokenId> prompt_of(uint32_t seed, size_t count) {
  return token_noise(seed, count, 3, kVocab);
}

EngineOptions options() {
  EngineOptions out = golden_options("llama");
  out.max_live = 8;
  out.max_rows = 64;
  out.slice = 64;
  return out;
}

// What the prompt yields in an engine of its own.
Take alone(const std::vector<TokenId>& prompt, const Sampling& sampling) {
  Rig rig(options());
  const auto tape = rig.submit(prompt, sampling);
  rig.run();
  return tape->take();
}

int64_t bytes_of(Rig& rig, int64_t tokens) {
  return rig.core().parts().cache->worst_case_bytes(tokens);
}

TEST(Core, AGreedyRunCountsWhatItDid) {
  Rig rig(options());
  const auto tape = rig.submit(prompt_of(1, 100), greedy(10));
  rig.run();
  const Result& r = tape->take().result;
  EXPECT_EQ(tape->take().finishes, 1);
  EXPECT_EQ(r.finish_reason, FinishReason::kLength);
  EXPECT_EQ(r.tokens.size(), 10u);
  EXPECT_EQ(r.tokens, tape->take().tokens);
  EXPECT_EQ(r.text, tape->take().text);
  EXPECT_EQ(r.usage.prompt_tokens, 100);
  EXPECT_EQ(r.usage.completion_tokens, 10);
  EXPECT_EQ(r.usage.cached_tokens, 0);
  EXPECT_EQ(r.usage.evaluated_tokens, 109);  // the last token is never evaluated
  EXPECT_GT(r.timings.ttft, 0.0);
  EXPECT_GE(r.timings.ttft, r.timings.prefill);
  EXPECT_GT(r.timings.tokens_per_second, 0.0);
  EXPECT_GT(r.kv.bytes_held, 0);
  const EngineStats stats = rig.core().stats();
  EXPECT_EQ(stats.rows, 109);
  EXPECT_EQ(stats.longest_slice, 64);
  EXPECT_EQ(stats.finished, 1);
  rig.expect_all_free();
}

TEST(Core, AHitEvaluatesOnlyTheLastPromptToken) {
  Rig rig(options());
  const auto cold = rig.submit(prompt_of(1, 100), greedy(5));
  rig.run();
  const auto warm = rig.submit(prompt_of(1, 100), greedy(5));
  rig.run();
  EXPECT_EQ(warm->take().result.usage.cached_tokens, 99);
  EXPECT_EQ(warm->take().result.usage.evaluated_tokens, 5);
  EXPECT_EQ(warm->take().tokens, cold->take().tokens);
  EXPECT_EQ(warm->take().logits.at(99), cold->take().logits.at(99));
}

TEST(Core, SaltsDoNotShare) {
  Rig rig(options());
  Core& core = rig.core();
  const auto tape = std::make_shared<Tape>();
  for (RequestId id = 1; id <= 2; ++id) {
    Request request;
    request.prompt = prompt_of(1, 50);
    request.sampling = greedy(2);
    request.cache_salt = id == 1 ? "a" : "b";
    Limits limits;
    limits.ctx = 100;
    const auto made = prepare(std::move(request), id == 2 ? tape : nullptr, core.parts(), limits,
                              Tiers(), "m", id, 1);
    ASSERT_TRUE(made);
    core.submit(*made);
    rig.run();
  }
  EXPECT_EQ(tape->take().result.usage.cached_tokens, 0);
}

TEST(Core, EqualPromptsTogetherAreOnePrefill) {
  Rig rig(options());
  const auto prompt = prompt_of(1, 300);
  const auto first = rig.submit(prompt, greedy(4));
  const auto second = rig.submit(prompt, greedy(4));
  rig.run();
  const Usage& a = first->take().result.usage;
  const Usage& b = second->take().result.usage;
  EXPECT_EQ(a.cached_tokens + b.cached_tokens, 299);
  EXPECT_EQ(a.evaluated_tokens + b.evaluated_tokens, 300 + 1 + 2 * 3);
  EXPECT_EQ(first->take().logits, second->take().logits);
}

TEST(Core, AFollowerGoesOnWhereACancelledWriterStopped) {
  const auto prompt = prompt_of(1, 300);
  const Take expected = alone(prompt, greedy(4));
  for (int steps = 0; steps <= 5; ++steps) {
    Rig rig(options());
    const auto first = rig.submit(prompt, greedy(4));
    const auto second = rig.submit(prompt, greedy(4));
    for (int i = 0; i < steps; ++i) rig.step();
    rig.core().cancel(1);
    rig.check();
    rig.run();
    EXPECT_EQ(first->take().result.finish_reason, FinishReason::kCancelled);
    const Result& r = second->take().result;
    EXPECT_EQ(r.tokens, expected.tokens);
    EXPECT_EQ(second->take().logits, expected.logits);
    const int64_t of_first = first->take().result.usage.evaluated_tokens;
    EXPECT_EQ(of_first, std::min(steps * 64, 300));
    // Nothing held was evaluated again, except the last prompt token.
    EXPECT_EQ(of_first + r.usage.evaluated_tokens, 300 + 3 + (of_first == 300 ? 1 : 0));
    rig.expect_all_free();
  }
}

TEST(Core, StopTokensStopAndAreKept) {
  const auto prompt = prompt_of(2, 40);
  const Take free = alone(prompt, greedy(12));
  Sampling s = greedy(12);
  s.stop_token_ids = {free.tokens[5]};
  const Take stopped = alone(prompt, s);
  const size_t at = static_cast<size_t>(
      std::find(free.tokens.begin(), free.tokens.end(), free.tokens[5]) - free.tokens.begin());
  EXPECT_EQ(stopped.result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.tokens, std::vector<TokenId>(free.tokens.begin(),
                                                 free.tokens.begin() + static_cast<long>(at) + 1));
  s.min_tokens = static_cast<int32_t>(at) + 2;  // the token is banned until then
  const Take later = alone(prompt, s);
  EXPECT_GE(later.tokens.size(), at + 2);
  EXPECT_NE(later.tokens[at], free.tokens[at]);
}

TEST(Core, StopStringsEndTheTextBeforeThem) {
  const auto prompt = prompt_of(3, 40);
  const Take free = alone(prompt, greedy(24));
  ASSERT_GT(free.text.size(), 12u);
  Sampling s = greedy(24);
  s.stop = {free.text.substr(6, 5)};
  const Take stopped = alone(prompt, s);
  EXPECT_EQ(stopped.result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stopped.result.text, free.text.substr(0, free.text.find(s.stop[0])));
  EXPECT_EQ(stopped.text, stopped.result.text);  // no event showed a part of the stop
  EXPECT_LT(stopped.tokens.size(), free.tokens.size());
  EXPECT_EQ(stopped.result.usage.completion_tokens, static_cast<int64_t>(stopped.tokens.size()));
}

TEST(Core, LogprobsComeWithEveryToken) {
  Sampling s = greedy(6);
  s.logprobs = true;
  s.top_logprobs = 3;
  const Take take = alone(prompt_of(4, 20), s);
  ASSERT_EQ(take.result.logprobs.size(), 6u);
  for (size_t i = 0; i < 6; ++i) {
    const TokenLogprob& entry = take.result.logprobs[i];
    EXPECT_EQ(entry.token, take.tokens[i]);
    ASSERT_EQ(entry.top.size(), 3u);
    EXPECT_EQ(entry.top[0].first, entry.token);  // greedy
    EXPECT_EQ(entry.top[0].second, entry.logprob);
    EXPECT_LE(entry.logprob, 0.0);
  }
}

TEST(Core, ChoicesForkFromOnePrefill) {
  Rig rig(options());
  Sampling s = greedy(6);
  s.n = 4;
  s.temperature = 1.0;
  s.seed = 5;
  const auto tape = rig.submit(prompt_of(5, 130), s);
  rig.run();
  int64_t evaluated = 0;
  std::set<std::vector<TokenId>> different;
  for (int32_t choice = 0; choice < 4; ++choice) {
    ASSERT_TRUE(tape->finished(choice));
    const Result& r = tape->take(choice).result;
    EXPECT_EQ(r.tokens.size(), 6u);
    EXPECT_EQ(r.usage.cached_tokens, choice == 0 ? 0 : 130);
    evaluated += r.usage.evaluated_tokens;
    different.insert(r.tokens);
  }
  EXPECT_EQ(evaluated, 130 + 4 * 5);
  EXPECT_GT(different.size(), 2u);
  rig.expect_all_free();
}

// More choices than places: the rest wait, resume from the retained prefix and draw the same.
TEST(Core, ChoicesBeyondTheLiveOnesWait) {
  Sampling s = greedy(6);
  s.n = 20;
  s.temperature = 1.0;
  s.seed = 5;
  const auto prompt = prompt_of(5, 70);
  Rig wide(options());  // 8 live
  const auto few = wide.submit(prompt, s);
  wide.run();
  EngineOptions roomy = options();
  roomy.max_live = 32;
  Rig rig(roomy);
  const auto all = rig.submit(prompt, s);
  rig.run();
  for (int32_t choice = 0; choice < 20; ++choice) {
    EXPECT_EQ(few->take(choice).tokens, all->take(choice).tokens);
  }
  EXPECT_EQ(wide.core().stats().max_step_sequences, 8);
  EXPECT_EQ(rig.core().stats().max_step_sequences, 20);
}

TEST(Core, PromptsThatCannotBeAreRefused) {
  Rig rig(options());
  const auto refused = [&](std::vector<TokenId> prompt, const std::string& named) {
    const auto tape = rig.submit(std::move(prompt), greedy(4));
    ASSERT_TRUE(tape->finished());
    const Result& r = tape->take().result;
    EXPECT_EQ(r.finish_reason, FinishReason::kError);
    ASSERT_TRUE(r.error);
    EXPECT_NE(r.error->message.find(named), std::string::npos) << r.error->message;
  };
  refused({}, "empty");
  refused({5, kVocab}, "prompt[1] is token 320");
  refused({-1}, "prompt[0] is token -1");
  refused(prompt_of(1, 2048), "prompt has 2048 tokens; --ctx 2048 allows 2047");
}

TEST(Core, TheContextEndsWithLength) {
  EngineOptions o = options();
  o.ctx = 50;
  Rig rig(o);
  const auto tape = rig.submit(prompt_of(1, 45), greedy(100));
  rig.run();
  EXPECT_EQ(tape->take().result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(tape->take().tokens.size(), 5u);
}

TEST(Core, WhatCanNeverFitIsRefusedNamingBytes) {
  EngineOptions o = options();
  Rig measure(o);
  const int64_t budget = bytes_of(measure, 200);
  o.kv_budget = budget;
  Rig rig(o);
  const auto big = rig.submit(prompt_of(1, 150), greedy(100));
  const auto small = rig.submit(prompt_of(2, 50), greedy(20));
  rig.run();
  const Result& r = big->take().result;
  EXPECT_EQ(r.finish_reason, FinishReason::kError);
  ASSERT_TRUE(r.error);
  EXPECT_EQ(r.error->code, ErrorCode::kTooLarge);
  EXPECT_NE(r.error->message.find(std::to_string(budget)), std::string::npos);
  EXPECT_NE(r.error->message.find(std::to_string(bytes_of(measure, 250))), std::string::npos);
  EXPECT_EQ(small->take().result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(small->take().tokens.size(), 20u);
}

// The last token of an answer needs no page.
TEST(Core, WhatFitsToTheTokenIsServed) {
  EngineOptions o = options();
  Rig measure(o);
  o.kv_budget = bytes_of(measure, 208);
  for (const int64_t ctx : {int64_t{0}, int64_t{209}}) {
    o.ctx = ctx;
    Rig rig(o);
    const auto fits = rig.submit(prompt_of(1, 150), greedy(ctx == 0 ? 59 : 1000));
    rig.run();
    EXPECT_EQ(fits->take().result.finish_reason, FinishReason::kLength);
    EXPECT_EQ(fits->take().tokens.size(), 59u);
    EXPECT_EQ(rig.core().stats().bytes_held, *o.kv_budget);
  }
  o.ctx = 0;
  Rig rig(o);
  const auto refused = rig.submit(prompt_of(1, 150), greedy(60));
  rig.run();
  EXPECT_EQ(refused->take().result.finish_reason, FinishReason::kError);
}

TEST(Core, WhatOutgrowsTheBudgetAloneEndsWithLength) {
  EngineOptions o = options();
  Rig measure(o);
  o.kv_budget = bytes_of(measure, 400);
  Rig rig(o);
  const auto tape = rig.submit(prompt_of(1, 100), greedy(1000));
  rig.run();
  const Result& r = tape->take().result;
  EXPECT_EQ(r.finish_reason, FinishReason::kLength);
  EXPECT_GE(r.tokens.size(), 290u);
  EXPECT_LE(r.tokens.size(), 320u);
  EXPECT_EQ(r.tokens,
            alone(prompt_of(1, 100), greedy(static_cast<int32_t>(r.tokens.size()))).tokens);
}

TEST(Core, PressurePreemptsTheYoungestAndItResumes) {
  EngineOptions o = options();
  Rig measure(o);
  // Each is let in with 50 + 256; both at their full length do not fit.
  o.kv_budget = bytes_of(measure, 700);
  Rig rig(o);
  Sampling s = greedy(400);
  s.temperature = 0.8;
  s.seed = 3;
  const auto older = rig.submit(prompt_of(1, 50), s);
  const auto younger = rig.submit(prompt_of(2, 50), s);
  rig.run();
  EXPECT_EQ(older->take().result.preemptions, 0);
  EXPECT_GE(younger->take().result.preemptions, 1);
  for (const auto& [tape, seed] : {std::pair(older, 1u), std::pair(younger, 2u)}) {
    const Take expected = alone(prompt_of(seed, 50), s);
    EXPECT_EQ(tape->take().tokens, expected.tokens);
    EXPECT_EQ(tape->take().logits, expected.logits);
    EXPECT_EQ(tape->take().text, expected.text);
    EXPECT_EQ(tape->unsteady_rows, 0);
    EXPECT_EQ(tape->take().finishes, 1);
  }
  rig.expect_all_free();
}

TEST(Core, AShrunkenBudgetPreemptsAndAGrownOneTakesBack) {
  EngineOptions o = options();
  Rig rig(o);
  std::vector<std::shared_ptr<Tape>> tapes;
  for (uint32_t i = 0; i < 4; ++i) tapes.push_back(rig.submit(prompt_of(i, 90), greedy(30)));
  for (int i = 0; i < 12; ++i) rig.step();
  const int64_t before = *o.kv_budget;
  ASSERT_TRUE(rig.core().set_budget(bytes_of(rig, 150)));
  rig.check();
  EXPECT_LE(rig.core().stats().bytes_held, bytes_of(rig, 150));
  EXPECT_GE(rig.core().stats().preemptions, 1);
  for (int i = 0; i < 3; ++i) rig.step();
  ASSERT_TRUE(rig.core().set_budget(before));
  EXPECT_FALSE(rig.core().set_budget(before + 1));
  EXPECT_FALSE(rig.core().set_budget(0));
  rig.run();
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(tapes[i]->take().logits, alone(prompt_of(i, 90), greedy(30)).logits);
  }
  rig.expect_all_free();
}

TEST(Core, ABudgetBelowThePinsIsRefusedAndDisturbsNobody) {
  EngineOptions o = options();
  Rig rig(o);
  std::vector<std::shared_ptr<Tape>> tapes;
  for (uint32_t i = 0; i < 4; ++i) tapes.push_back(rig.submit(prompt_of(i, 90), greedy(30)));
  for (int i = 0; i < 12; ++i) rig.step();
  const auto pin = rig.core().pin(scope_of(o.model, {}, KvTier::kOff, ""), prompt_of(0, 90), 0.0);
  ASSERT_TRUE(pin && pin->tokens == 90);
  const EngineStats before = rig.core().stats();
  const Status refused = rig.core().set_budget(bytes_of(rig, 90) - 1);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_NE(refused.error().message.find(format_size(bytes_of(rig, 90))), std::string::npos);
  const EngineStats after = rig.core().stats();
  EXPECT_EQ(after.preemptions, 0);
  EXPECT_EQ(after.live, 4);
  EXPECT_EQ(after.kv_budget, before.kv_budget);
  EXPECT_EQ(after.bytes_held, before.bytes_held);
  EXPECT_TRUE(rig.core().set_budget(bytes_of(rig, 90)));  // the pinned prompt and nobody
  EXPECT_EQ(rig.core().stats().live, 0);
  EXPECT_EQ(rig.core().stats().bytes_held, bytes_of(rig, 90));
  ASSERT_TRUE(rig.core().set_budget(*o.kv_budget));
  rig.run();
  for (const auto& tape : tapes) EXPECT_EQ(tape->take().tokens.size(), 30u);
}

TEST(Core, CancelEndsLiveWaitingAndUnbornAlike) {
  EngineOptions o = options();
  o.max_live = 1;
  Rig rig(o);
  Sampling s = greedy(50);
  s.n = 3;
  const auto live = rig.submit(prompt_of(1, 200), s);
  const auto waiting = rig.submit(prompt_of(2, 50), greedy(5));
  const auto last = rig.submit(prompt_of(3, 50), greedy(5));
  rig.step();
  rig.core().cancel(1);
  rig.core().cancel(2);
  rig.core().cancel(77);
  for (int32_t choice = 0; choice < 3; ++choice) {
    ASSERT_TRUE(live->finished(choice));
    EXPECT_EQ(live->take(choice).result.finish_reason, FinishReason::kCancelled);
  }
  EXPECT_TRUE(waiting->finished());
  EXPECT_EQ(rig.core().stats().live, 0);
  rig.run();
  EXPECT_EQ(last->take().result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(rig.core().stats().finished, 5);
  rig.expect_all_free();
}

TEST(Core, AnObserverEndsItsSequenceInThatStep) {
  Rig rig(options());
  const auto stops = std::make_shared<Tape>();
  stops->judge = [&](const TokenEvent&) {
    return stops->take().tokens.size() == 3 ? Verdict::kStop : Verdict::kContinue;
  };
  const auto cancels = std::make_shared<Tape>();
  cancels->judge = [](const TokenEvent&) { return Verdict::kCancel; };
  rig.submit(prompt_of(1, 30), greedy(20), stops);
  rig.submit(prompt_of(2, 30), greedy(20), cancels);
  rig.run();
  EXPECT_EQ(stops->take().result.finish_reason, FinishReason::kStop);
  EXPECT_EQ(stops->take().tokens.size(), 3u);
  EXPECT_EQ(cancels->take().result.finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(cancels->take().tokens.size(), 1u);
}

TEST(Core, PinsSurviveAFlushUntilTheyEnd) {
  Rig rig(options());
  const auto prompt = prompt_of(1, 100);
  rig.submit(prompt, greedy(2));
  rig.run();
  const kv::Scope scope = scope_of(options().model, {}, KvTier::kOff, "");
  const PinInfo pin = *rig.core().pin(scope, prompt, 0.0);
  EXPECT_NE(pin.id, 0u);
  EXPECT_GE(pin.tokens, 96);
  rig.core().flush();
  EXPECT_EQ(rig.core().stats().pins, 1);
  const auto warm = rig.submit(prompt, greedy(2));
  rig.run();
  EXPECT_GE(warm->take().result.usage.cached_tokens, 96);
  EXPECT_TRUE(rig.core().unpin(pin.id));
  EXPECT_FALSE(rig.core().unpin(pin.id));
  rig.core().flush();
  EXPECT_EQ(rig.core().pin(scope, prompt, 0.0)->id, 0u);

  rig.submit(prompt, greedy(2));
  rig.run();
  rig.core().tick(100.0);
  EXPECT_NE(rig.core().pin(scope, prompt, 5.0)->id, 0u);
  rig.core().tick(104.0);
  EXPECT_EQ(rig.core().stats().pins, 1);
  rig.core().tick(106.0);
  rig.expect_all_free();
}

// Options with a budget for so many tokens.
EngineOptions options_for(int32_t tokens) {
  EngineOptions o = options();
  Rig measure(o);
  o.kv_budget = bytes_of(measure, tokens);
  return o;
}

// Evaluates 200 tokens and pins them for `seconds`, 0: for good.
PinInfo pin_prompt(Rig& rig, const EngineOptions& o, double seconds) {
  rig.submit(prompt_of(1, 200), greedy(2));
  rig.run();
  const PinInfo pin =
      *rig.core().pin(scope_of(o.model, {}, KvTier::kOff, ""), prompt_of(1, 200), seconds);
  EXPECT_NE(pin.id, 0u);
  return pin;
}

TEST(Core, APinnedCacheRefusesWhatCannotFitBesideIt) {
  const EngineOptions o = options_for(300);
  Rig rig(o);
  const PinInfo pin = pin_prompt(rig, o, 0.0);
  const auto refused = rig.submit(prompt_of(2, 200), greedy(2));
  rig.run();
  ASSERT_TRUE(refused->finished());
  EXPECT_EQ(refused->take().result.finish_reason, FinishReason::kError);
  EXPECT_NE(refused->take().result.error->message.find("pins"), std::string::npos);
  EXPECT_FALSE(rig.core().set_budget(bytes_of(rig, 50)));
  EXPECT_EQ(rig.core().stats().kv_budget, *o.kv_budget);
  EXPECT_TRUE(rig.core().unpin(pin.id));
  const auto fits = rig.submit(prompt_of(2, 200), greedy(2));
  rig.run();
  EXPECT_EQ(fits->take().result.finish_reason, FinishReason::kLength);
}

TEST(Core, WhatFitsOnceAPinRunsOutWaitsForThat) {
  const EngineOptions o = options_for(300);
  Rig rig(o);
  pin_prompt(rig, o, 5.0);
  const auto waits = rig.submit(prompt_of(2, 200), greedy(2));
  EXPECT_TRUE(rig.step());
  EXPECT_TRUE(rig.core().stalled());
  EXPECT_FALSE(waits->finished());
  rig.sleep(5.0);
  EXPECT_TRUE(rig.step());
  EXPECT_FALSE(rig.core().stalled());
  rig.run();
  EXPECT_EQ(waits->take().logits, alone(prompt_of(2, 200), greedy(2)).logits);
  EXPECT_EQ(waits->take().result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(waits->take().tokens.size(), 2u);
}

// It is let in beside the pin and outgrows what the pin leaves.
TEST(Core, WhatOutgrowsARunningOutPinIsSetAsideAndResumes) {
  const EngineOptions o = options_for(700);
  Rig rig(o);
  pin_prompt(rig, o, 1.0);
  const auto tape = rig.submit(prompt_of(2, 50), greedy(600));
  rig.run();
  EXPECT_EQ(tape->take().result.finish_reason, FinishReason::kLength);
  EXPECT_EQ(tape->take().result.preemptions, 1);
  EXPECT_EQ(tape->take().tokens, alone(prompt_of(2, 50), greedy(600)).tokens);
}

TEST(Core, APinDoesNotTakeWhatWasPromised) {
  EngineOptions o = options();
  Rig measure(o);
  o.kv_budget = bytes_of(measure, 320);
  Rig rig(o);
  rig.submit(prompt_of(1, 200), greedy(2));
  rig.run();
  const auto tape = rig.submit(prompt_of(2, 50), greedy(200));  // counts on what is retained
  rig.step();
  const kv::Scope scope = scope_of(o.model, {}, KvTier::kOff, "");
  const auto refused = rig.core().pin(scope, prompt_of(1, 200), 0.0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
  EXPECT_NE(refused.error().message.find("200 tokens"), std::string::npos);
  EXPECT_EQ(rig.core().stats().pins, 0);
  rig.check();
  EXPECT_NE(rig.core().pin(scope, prompt_of(1, 60), 0.0)->id, 0u);  // that much is left
  EXPECT_NE(rig.core().pin(scope, prompt_of(2, 50), 0.0)->id, 0u);  // it is its own
  rig.run();
  EXPECT_EQ(tape->take().result.preemptions, 0);
  EXPECT_EQ(tape->take().tokens.size(), 200u);
}

// What finished requests left in the cache is held, but not by those that the receipt compares.
TEST(Core, TheSharingFactorIsOfLiveRequestsAlone) {
  EngineOptions o = options();
  o.max_live = 4;
  Rig rig(o);
  const auto prefix = prompt_of(1, 512);
  for (uint32_t i = 0; i < 40; ++i) {
    rig.submit(joined(prefix, prompt_of(100 + i, 64)), greedy(16));
  }
  rig.run();
  const KvReceipt peak = rig.core().stats().peak;
  EXPECT_GT(peak.bytes_reclaimable, peak.bytes_held / 2);
  EXPECT_GT(peak.sharing_factor(), 2.0);
  EXPECT_LE(peak.sharing_factor(), 4.0);
}

TEST(Core, TheReceiptIsTakenAtThePeak) {
  EngineOptions o = options();
  o.max_live = 16;
  Rig rig(o);
  const auto prefix = prompt_of(1, 512);
  std::vector<std::shared_ptr<Tape>> tapes;
  for (uint32_t i = 0; i < 16; ++i) {
    tapes.push_back(rig.submit(joined(prefix, prompt_of(100 + i, 16)), greedy(16)));
  }
  rig.run();
  const EngineStats stats = rig.core().stats();
  EXPECT_EQ(stats.peak.bytes_held, stats.bytes_held);  // nothing was reclaimed since
  EXPECT_GT(stats.peak.sharing_factor(), 7.0);
  for (const auto& tape : tapes) EXPECT_EQ(tape->take().result.kv.bytes_held, stats.bytes_held);
  rig.core().reset_peak();
  EXPECT_EQ(rig.core().stats().peak.bytes_held, 0);
}

TEST(Core, RequestsAreServedInTheOrderTheyCame) {
  EngineOptions o = options();
  o.max_live = 1;
  Rig rig(o);
  std::vector<RequestId> order;
  std::vector<std::shared_ptr<Tape>> tapes;
  for (uint32_t i = 0; i < 5; ++i) {
    const auto tape = std::make_shared<Tape>();
    tape->judge = [&](const TokenEvent& event) {
      order.push_back(event.id);
      return Verdict::kContinue;
    };
    tapes.push_back(rig.submit(prompt_of(i, 30), greedy(1), tape));
  }
  rig.run();
  EXPECT_EQ(order, (std::vector<RequestId>{1, 2, 3, 4, 5}));
}

}  // namespace
}  // namespace coppice::engine
