// Gated scopes by hand: what is held, where requests may start, what is shared and what goes back.
#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

Tier tier_of(float threshold, int32_t window = 6, int32_t sinks = 2) {
  return {.rule = {.threshold = threshold, .window = window, .sinks = sinks}};
}
const Tier kHalf = tier_of(0.0f);
const Tier kQuarter = tier_of(2.0f);

TEST(GatedCache, DropsAndServesWhatIsVisible) {
  Rig rig(64);
  const SequenceId id = rig.open_gated(counting(40), kHalf);
  rig.finish(id, 7);
  const auto footprint = rig.cache->footprint(id);
  for (const double ratio : footprint.keep_ratio) {
    EXPECT_GT(ratio, 0.2);
    EXPECT_LT(ratio, 0.85);
  }
  EXPECT_LT(rig.columns_held(), 10);  // ungated: 10
}

TEST(GatedCache, ARepeatedPromptEvaluatesOneToken) {
  Rig rig(64);
  rig.close([&] {
    const SequenceId id = rig.open_gated(counting(40), kHalf);
    rig.finish(id);
    return id;
  }());
  EXPECT_EQ(rig.held_gated(counting(40)), 40);
  const SequenceId again = rig.open_gated(counting(40), kHalf);
  EXPECT_EQ(rig.finish(again), 1);
}

TEST(GatedCache, StartsAtBoundariesAndSharesWhatWasReplayed) {
  Rig rig(256);
  const SequenceId a = rig.open_gated(counting(60), kHalf, {20});
  rig.finish(a, 9);
  const int64_t alone = rig.cache->stats().bytes_held;
  // Parts from a at 43: starts at 20, replays 20..43 into a run of its own, which a's then hangs
  // below.
  const SequenceId b = rig.open_gated(counting(43) + counting(10, 1000), kHalf);
  EXPECT_EQ(rig.computed(b), 20);
  EXPECT_EQ(rig.finish(b, 9), 33);
  const SequenceId c = rig.open_gated(counting(43) + counting(10, 2000), kHalf);
  EXPECT_EQ(rig.computed(c), 43);
  EXPECT_EQ(rig.finish(c), 10);
  // What b and c hold beyond a: ten tokens each and what their ends need.
  const int64_t list_pages = rig.cache->stats().bytes_held - alone;
  EXPECT_LT(list_pages, 2 * 7 * rig.shape_.column_bytes());
  rig.close(a);
  rig.close(b);
  rig.close(c);
  EXPECT_EQ(rig.held_gated(counting(60)), 60);
}

class GatedAnswers : public ::testing::Test {
 protected:
  // Tokens [20, n) after a prompt of 20, one a step: no boundary is left on the way.
  void answer(SequenceId id, int64_t n) {
    while (std::ssize(rig.live.at(id).tokens) < n) {
      rig.append(id, static_cast<TokenId>(std::ssize(rig.live.at(id).tokens)));
      rig.finish(id);
    }
  }
  SequenceId answered(int64_t n) {
    const SequenceId id = rig.open_gated(counting(20), kHalf);
    rig.finish(id);
    answer(id, n);
    return id;
  }
  int64_t tokens_held() const { return rig.cache->stats().tokens_held; }

  Rig rig{256};
};

// Answers to one prompt that are the same as far as the shorter goes: cancelled and asked again, or
// with other limits.
TEST_F(GatedAnswers, TheLongerHangsBelowTheShorter) {
  for (const int64_t end : {30, 45, 60, 38}) {
    rig.close(answered(end));
    EXPECT_EQ(tokens_held(), end == 38 ? 60 : end);
    EXPECT_EQ(rig.held_gated(counting(end)), end);
  }
  for (const int64_t end : {30, 38, 45, 60}) {
    const SequenceId id = rig.open_gated(counting(end) + counting(5, 1000), kHalf);
    EXPECT_EQ(rig.finish(id), 5);  // every row's view is compared
    rig.close(id);
  }
}

TEST_F(GatedAnswers, TheLongerHangsBelowTheShorterWhichLives) {
  const SequenceId shorter = answered(30), longer = answered(25);
  rig.close(rig.fork(shorter));  // leaves a boundary at 30
  answer(longer, 45);
  EXPECT_EQ(tokens_held(), 20 + 10 + 25);
  rig.close(longer);
  EXPECT_EQ(tokens_held(), 45);
  answer(shorter, 36);
  rig.close(shorter);
  EXPECT_EQ(tokens_held(), 45);
}

TEST_F(GatedAnswers, WhoIsCutOffWhereANewcomerStartsJoinsToo) {
  const SequenceId shorter = answered(30);
  rig.close(answered(45));
  EXPECT_EQ(tokens_held(), 20 + 10 + 25);
  const SequenceId newcomer = rig.open_gated(counting(30) + counting(5, 1000), kHalf);
  EXPECT_EQ(rig.computed(newcomer), 30);
  EXPECT_EQ(tokens_held(), 45);
  EXPECT_EQ(rig.finish(newcomer), 5);
  answer(shorter, 32);
}

TEST(GatedCache, JoinsWhatIsStillToBeWritten) {
  Rig rig(256);
  const SequenceId a = rig.open_gated(counting(50), kHalf);
  const SequenceId b = rig.open_gated(counting(33) + counting(10, 1000), kHalf);
  EXPECT_TRUE(rig.blocked(b));
  EXPECT_EQ(rig.finish(a, 8), 50);
  EXPECT_FALSE(rig.blocked(b));
  EXPECT_EQ(rig.finish(b, 8), 10);
}

TEST(GatedCache, AFollowerGoesOnWhereTheWriterWasCancelled) {
  Rig rig(256);
  const SequenceId a = rig.open_gated(counting(50), kHalf);
  const SequenceId b = rig.open_gated(counting(33) + counting(10, 1000), kHalf);
  rig.reserve(a, 8);
  rig.run();
  rig.close(a);
  EXPECT_EQ(rig.computed(b), 8);
  EXPECT_EQ(rig.finish(b, 8), 35);
}

TEST(GatedCache, ForksShareAllThatIsComputed) {
  Rig rig(256);
  const SequenceId a = rig.open_gated(counting(30), kHalf);
  rig.finish(a);
  const SequenceId b = rig.fork(a);
  for (TokenId t = 0; t < 20; ++t) {
    rig.append(a, 100 + t);
    rig.append(b, 200 + t);
    ASSERT_TRUE(rig.reserve(a, 1) && rig.reserve(b, 1));
    ASSERT_EQ(rig.run(), 2);
  }
}

TEST(GatedCache, ExactTokensAreOtherKeysAndStay) {
  Rig rig(64);
  Tokens exact = counting(40);
  for (TokenId& t : exact) t |= kExactToken;
  const SequenceId id = rig.open_gated(exact, kQuarter);
  rig.finish(id);
  for (const double ratio : rig.cache->footprint(id).keep_ratio) EXPECT_EQ(ratio, 1.0);
  EXPECT_EQ(rig.held_gated(counting(40)), 0);
}

TEST(GatedCache, WithoutDecodeGateNothingGeneratedIsDroppedOrPublished) {
  Rig rig(256);
  Tier tier = kQuarter;
  tier.decode_gate = false;
  const SequenceId a = rig.open_gated(counting(30), tier);
  rig.finish(a);
  const int64_t kept_before = rig.cache->footprint(a).bytes;
  for (TokenId t = 0; t < 30; ++t) {
    rig.append(a, 100 + t);
    ASSERT_TRUE(rig.reserve(a, 1));
    rig.run();
  }
  EXPECT_GE(rig.cache->footprint(a).bytes - kept_before, 6 * rig.shape_.column_bytes());
  const SequenceId fork = rig.fork(a);
  EXPECT_EQ(rig.computed(fork), 60);
  rig.close(fork);
  const Tokens all = rig.live.at(a).tokens + counting(3, 500);
  const SequenceId b = rig.open_gated(all, tier);
  EXPECT_EQ(rig.computed(b), 30);
  rig.close(a);
  EXPECT_EQ(rig.held_gated(all), 30);
  EXPECT_EQ(rig.finish(b), 33);
}

TEST(GatedCache, PressureFreesOverlaysOfInnerBoundariesFirst) {
  Rig rig(40);
  const SequenceId a = rig.open_gated(counting(100), kQuarter, {20, 40, 60, 80});
  rig.finish(a);
  const int64_t overlays = rig.cache->stats().overlays;
  EXPECT_GE(overlays, 3);
  rig.close(a);
  rig.cache->set_budget(rig.cache->stats().bytes_held - rig.shape_.column_bytes());
  EXPECT_GT(rig.cache->stats().overlays_freed, 0);
  EXPECT_EQ(rig.held_gated(counting(100)), 100);  // its end is what was used last
  rig.cache->flush();
  EXPECT_EQ(rig.cache->stats().bytes_held, 0);
}

TEST(GatedCache, AReplayPastSeveralFreedOverlaysIsHeldOnce) {
  Rig rig(60);
  const SequenceId a = rig.open_gated(counting(100), kQuarter, {20, 40, 60, 80});
  rig.finish(a);
  rig.close(a);
  while (rig.cache->stats().overlays > 0) {
    rig.cache->set_budget(rig.cache->stats().bytes_held - rig.cache->stats().page_bytes);
  }
  ASSERT_EQ(rig.cache->stats().tokens_held, 100);
  rig.cache->set_budget(60 * rig.shape_.column_bytes());
  const SequenceId b = rig.open_gated(counting(70) + counting(5, 1000), kQuarter);
  EXPECT_EQ(rig.finish(b, 8), 75);
  EXPECT_EQ(rig.cache->stats().tokens_held, 105);
  rig.close(b);
  EXPECT_EQ(rig.held_gated(counting(65)), 60);
}

// What was generated without the gate goes with its request, and with it a prompt that nobody can
// start from any more.
TEST(GatedCache, APromptWithoutOverlaysGoesWithItsLastUser) {
  Rig rig(60);
  Tier tier = kQuarter;
  tier.decode_gate = false;
  const SequenceId a = rig.open_gated(counting(30), tier);
  rig.finish(a);
  rig.append(a, 100);
  rig.finish(a);
  EXPECT_FALSE(rig.cache->set_budget(0));
  EXPECT_EQ(rig.cache->stats().overlays, 0);
  rig.cache->set_budget(60 * rig.shape_.column_bytes());
  EXPECT_EQ(rig.held_gated(counting(30)), 0);
  rig.close(a);
  EXPECT_EQ(rig.cache->stats().bytes_held, 0);
  EXPECT_EQ(rig.cache->stats().tokens_reclaimed, 30);
}

TEST(GatedCache, ReclaimableIsWhatPressureFrees) {
  Rig rig(256);
  Tier tier = kHalf;
  tier.memory_floats = 40;
  const SequenceId a = rig.open_gated(counting(60), tier, {20, 40});
  rig.finish(a);
  const SequenceId b = rig.open_gated(counting(20) + counting(31, 1000), tier);
  rig.finish(b);
  rig.close(b);
  const KvStats before = rig.cache->stats();
  EXPECT_FALSE(rig.cache->set_budget(0));
  const KvStats after = rig.cache->stats();
  EXPECT_EQ(after.bytes_held, before.bytes_held - before.bytes_reclaimable);
  EXPECT_EQ(after.bytes_reclaimable, 0);
  rig.cache->set_budget(256 * rig.shape_.column_bytes());
  rig.close(a);
  EXPECT_EQ(rig.cache->stats().bytes_reclaimable, rig.cache->stats().bytes_held);
}

TEST(GatedCache, TheFootprintOfALoneSequenceIsWhatIsHeld) {
  Rig rig(256);
  Tier tier = kQuarter;
  tier.memory_floats = 40;
  const SequenceId a = rig.open_gated(counting(60), tier, {20, 40});
  while (rig.computed(a) < 60) {
    ASSERT_TRUE(rig.reserve(a, 9));
    for (const bool committed : {false, true}) {
      const int64_t beyond = rig.cache->stats().bytes_held - rig.cache->footprint(a).bytes;
      EXPECT_GE(beyond, 0);  // what charged bytes lack of a page
      EXPECT_LT(beyond, rig.cache->stats().page_bytes);
      if (!committed) rig.run();
    }
  }
}

TEST(GatedCache, PinnedBoundariesKeepTheirOverlays) {
  Rig rig(40);
  const SequenceId a = rig.open_gated(counting(60), kQuarter, {20});
  rig.finish(a);
  rig.close(a);
  const auto pin = rig.cache->pin("g", counting(25), 0);
  EXPECT_EQ(pin.tokens, 20);
  rig.cache->set_budget(0);
  rig.check();
  EXPECT_EQ(rig.held_gated(counting(60)), 20);
  EXPECT_EQ(rig.cache->pinned_bytes(), rig.cache->stats().bytes_held);
  EXPECT_TRUE(rig.cache->unpin(pin.id));
  EXPECT_EQ(rig.cache->stats().bytes_held, 0);
}

TEST(GatedCache, AnAbandonedStepLeavesNoTrace) {
  Rig rig(64);
  const SequenceId a = rig.open_gated(counting(30), kHalf);
  rig.reserve(a, 11);
  rig.run();
  const int64_t held = rig.cache->stats().bytes_held;
  rig.reserve(a, 7);
  rig.cache->plan(Partition::kTwoPhase);
  rig.cache->abandon();
  rig.check();
  EXPECT_EQ(rig.cache->stats().bytes_held, held);
  EXPECT_EQ(rig.finish(a, 5), 19);
}

TEST(GatedCache, GatedAndUngatedRowsShareAStep) {
  Rig rig(256);
  const SequenceId plain = rig.open(counting(30));
  const SequenceId gated = rig.open_gated(counting(30), kHalf);
  const SequenceId other = rig.open(counting(20) + counting(5, 100));
  for (const auto partition : {Partition::kTwoPhase, Partition::kPerSequence}) {
    ASSERT_TRUE(rig.reserve(plain, 12) && rig.reserve(gated, 12));
    EXPECT_EQ(rig.run(partition), 24);
  }
  rig.finish(plain);
  rig.finish(gated);
  rig.finish(other);
}

}  // namespace
}  // namespace coppice::kv
