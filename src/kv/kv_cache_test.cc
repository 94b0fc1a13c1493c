// What is shared, who waits for whom, what remains. Pages hold 4 tokens.
#include <gtest/gtest.h>

#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

TEST(KvCache, ALonePromptIsComputedInSlicesAndDecoded) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(10));
  EXPECT_EQ(rig.progress(a).tokens, 10);
  EXPECT_EQ(rig.computed(a), 0);
  EXPECT_EQ(rig.reserve(a, 3), 3);
  EXPECT_EQ(rig.columns_held(), 1);
  EXPECT_EQ(rig.run(), 3);
  EXPECT_EQ(rig.reserve(a, 100), 7);  // it stops at the planned end
  rig.run();
  EXPECT_EQ(rig.computed(a), 10);
  rig.append(a, 77);
  EXPECT_EQ(rig.finish(a), 1);
  EXPECT_EQ(rig.columns_held(), 3);
  rig.close(a);
  EXPECT_EQ(rig.held(counting(10) + Tokens{77, 78}), 11);
  EXPECT_EQ(rig.cache->stats().references, 0);
}

TEST(KvCache, SharesToTheTokenWhereverTwoPromptsPart) {
  for (int64_t common = 0; common <= 12; ++common) {
    SCOPED_TRACE(common);
    Rig rig(16);
    rig.finish_open(counting(12));
    const SequenceId b = rig.open(counting(common) + counting(13 - common, 100));
    EXPECT_EQ(rig.computed(b), common);
    EXPECT_EQ(rig.finish(b), 13 - common);
    // Whole pages once; the branch's own page holds a copy of the rest.
    EXPECT_EQ(rig.cache->stats().tokens_copied, common % 4);
    EXPECT_EQ(rig.columns_held(), 3 + 4 - common / 4);
  }
}

TEST(KvCache, NothingIsSharedAcrossScopes) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(8), "tenant a");
  rig.finish(a);
  const SequenceId b = rig.open(counting(8), "tenant b");
  EXPECT_EQ(rig.computed(b), 0);
  EXPECT_EQ(rig.held(counting(8), "tenant b"), 0);
  EXPECT_EQ(rig.finish(b), 8);
  EXPECT_EQ(rig.columns_held(), 4);
}

TEST(KvCache, SharesAtEveryLevel) {
  Rig rig(64);
  const Tokens company = counting(16), team_a = company + counting(8, 100);
  const Tokens team_b = company + counting(8, 200);
  rig.finish_open(team_a + Tokens{1, 2});
  EXPECT_EQ(rig.finish_open(team_b + Tokens{1}), 9);
  EXPECT_EQ(rig.finish_open(team_a + Tokens{7}), 1);
  EXPECT_EQ(rig.finish_open(team_b + Tokens{8}), 1);
  EXPECT_EQ(rig.columns_held(), 4 + 2 + 2 + 4);
}

TEST(KvCache, TheLastTokenIsAlwaysEvaluatedAndThenHeldOnce) {
  Rig rig(16);
  rig.finish_open(counting(8));
  const SequenceId b = rig.open(counting(8));
  EXPECT_EQ(rig.computed(b), 7);
  EXPECT_EQ(rig.finish(b), 1);
  EXPECT_EQ(rig.columns_held(), 2);  // its page became equal to the other's and went back
}

TEST(KvCache, ATurnGoesOnInPlaceWhereTheLastOneEnded) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(6));
  rig.finish(a);
  rig.close(a);
  const SequenceId b = rig.open(counting(9));
  EXPECT_EQ(rig.finish(b), 3);
  EXPECT_EQ(rig.cache->stats().tokens_copied, 0);
  EXPECT_EQ(rig.columns_held(), 3);
  EXPECT_EQ(rig.cache->stats().nodes, 1);
}

TEST(KvCache, TheSameAnswerTwiceIsHeldOnce) {
  Rig rig(32);
  for (int round = 0; round < 3; ++round) {
    const SequenceId a = rig.open(counting(10));
    rig.finish(a);
    for (TokenId t = 0; t < 12; ++t) {
      rig.append(a, 50 + t);
      EXPECT_EQ(rig.finish(a), 1);
    }
    rig.close(a);
    EXPECT_EQ(rig.columns_held(), 6);
    EXPECT_EQ(rig.cache->stats().tokens_held, 22);
  }
  EXPECT_EQ(rig.cache->stats().nodes, 1);
}

TEST(KvCache, TwoThatWriteTheSameAreJoinedPageByPage) {
  Rig rig(32);
  const SequenceId a = rig.open(counting(8));
  rig.finish(a);
  const SequenceId b = rig.fork(a);
  for (TokenId t = 0; t < 8; ++t) {
    for (const SequenceId id : {a, b}) {
      rig.append(id, 50 + t);
      EXPECT_EQ(rig.reserve(id, 1), 1);
    }
    rig.run();
  }
  EXPECT_EQ(rig.columns_held(), 4);
  // They part, and still share all but the page in which they do.
  rig.append(a, 1);
  rig.append(b, 2);
  EXPECT_EQ(rig.finish(a) + rig.finish(b), 2);
  EXPECT_EQ(rig.columns_held(), 6);
}

TEST(KvCache, WhatAnotherGeneratedMeanwhileIsNotEvaluatedAgain) {
  Rig rig(32);
  const SequenceId a = rig.open(counting(4));
  rig.finish(a);
  const SequenceId b = rig.open(counting(4) + counting(9, 50));
  for (TokenId t = 0; t < 6; ++t) {
    rig.append(a, 50 + t);
    rig.finish(a);
  }
  EXPECT_EQ(rig.computed(b), 10);  // four of the prompt, six that the other wrote since
  EXPECT_EQ(rig.finish(b), 3);
}

// ---- waiting

TEST(KvCache, FollowersWaitAndTakeOverWhereverTheWriterEnds) {
  for (int64_t written = 0; written <= 16; ++written) {
    SCOPED_TRACE(written);
    Rig rig(32);
    const SequenceId a = rig.open(counting(16) + Tokens{100});
    const SequenceId b = rig.open(counting(16) + Tokens{200});
    const SequenceId c = rig.open(counting(16) + Tokens{300});
    if (written > 0) {
      EXPECT_EQ(rig.reserve(a, static_cast<int32_t>(written)), written);
      EXPECT_FALSE(rig.reserve(b, 4).has_value());
      rig.run();
    }
    EXPECT_EQ(rig.computed(b), written);
    EXPECT_EQ(rig.blocked(b), written < 16);
    EXPECT_EQ(rig.blocked(c), written < 16);
    rig.close(a);
    EXPECT_FALSE(rig.blocked(b));
    EXPECT_EQ(rig.blocked(c), written < 16);
    EXPECT_EQ(rig.finish(b), 17 - written);
    EXPECT_EQ(rig.finish(c), 1);
    EXPECT_EQ(rig.columns_held(), 6);
  }
}

TEST(KvCache, TwoEqualPromptsTogetherAreOnePrefill) {
  Rig rig(32);
  const SequenceId a = rig.open(counting(11));
  const SequenceId b = rig.open(counting(11));
  EXPECT_TRUE(rig.blocked(b));
  EXPECT_EQ(rig.finish(a, 3), 11);
  EXPECT_EQ(rig.finish(b), 1);
}

TEST(KvCache, APartOfAPageIsWaitedForAndCopied) {
  Rig rig(32);
  const SequenceId a = rig.open(Tokens{1, 2, 3, 4, 5});
  const SequenceId b = rig.open(Tokens{1, 2, 9, 9, 9});
  EXPECT_TRUE(rig.blocked(b));
  EXPECT_EQ(rig.reserve(a, 1), 1);
  rig.run();
  EXPECT_TRUE(rig.blocked(b));  // a second token is still coming
  EXPECT_EQ(rig.reserve(a, 1), 1);
  rig.run();
  EXPECT_FALSE(rig.blocked(b));
  EXPECT_EQ(rig.computed(b), 2);
  EXPECT_EQ(rig.finish(b), 3);
  EXPECT_EQ(rig.cache->stats().tokens_copied, 2);
}

TEST(KvCache, WaitersFormAChainInTheOrderOfAge) {
  Rig rig(32);
  const SequenceId a = rig.open(Tokens{1, 2, 9, 9});
  const SequenceId b = rig.open(Tokens{1, 2, 3, 8});
  const SequenceId c = rig.open(Tokens{1, 2, 3, 7});
  EXPECT_FALSE(rig.blocked(a));
  EXPECT_TRUE(rig.blocked(b));
  EXPECT_TRUE(rig.blocked(c));
  rig.finish(a);
  EXPECT_FALSE(rig.blocked(b));
  EXPECT_TRUE(rig.blocked(c));  // for b's third token
  rig.close(b);
  EXPECT_FALSE(rig.blocked(c));
  EXPECT_EQ(rig.finish(c), 2);
}

TEST(KvCache, OneThatJoinsWhatAnotherHoldsMayThenHaveToWait) {
  Rig rig(32);
  const SequenceId a = rig.open({1, 2});
  rig.finish(a);
  const SequenceId b = rig.open(counting(8, 1));
  const SequenceId c = rig.open({1, 2});
  rig.finish(c);
  for (const TokenId t : {3, 4}) {
    rig.append(c, t);
    rig.append(a, t);
    EXPECT_EQ(rig.finish(c) + rig.finish(a), 2);
  }
  rig.append(c, 9);
  rig.finish(c);
  rig.append(a, 5);  // a hangs below the page that c filled first, where b has not looked yet
  EXPECT_FALSE(rig.blocked(b));
  EXPECT_EQ(rig.computed(b), 4);
  EXPECT_FALSE(rig.reserve(b, 8).has_value());
  EXPECT_TRUE(rig.blocked(b));
  EXPECT_EQ(rig.computed(b), 4);
  EXPECT_EQ(rig.finish(a), 1);
  EXPECT_EQ(rig.finish(b), 3);
}

TEST(KvCache, AWriterGoesOnBelowTheSharedPartInTheSameSlice) {
  Rig rig(32);
  const SequenceId a = rig.open(counting(8) + counting(6, 100));
  rig.open(counting(8) + counting(6, 200));
  EXPECT_EQ(rig.reserve(a, 11), 11);
  EXPECT_EQ(rig.run(), 11);
  EXPECT_EQ(rig.computed(a), 11);
}

// ---- steps that do not run

TEST(KvCache, AnAbandonedStepGivesItsPagesBack) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(8) + Tokens{1});
  const SequenceId b = rig.open(counting(8) + Tokens{2});
  EXPECT_EQ(rig.reserve(a, 9), 9);
  EXPECT_EQ(rig.columns_held(), 3);
  rig.cache->plan(Partition::kTwoPhase);
  rig.cache->abandon();
  rig.check();
  EXPECT_EQ(rig.columns_held(), 0);
  EXPECT_EQ(rig.computed(a), 0);
  EXPECT_EQ(rig.finish(a), 9);
  EXPECT_EQ(rig.finish(b), 1);
}

TEST(KvCache, ASequenceMayCloseWhileItHasRowsInTheStep) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(9));
  const SequenceId b = rig.open(counting(9, 100));
  EXPECT_EQ(rig.reserve(a, 9), 9);
  EXPECT_EQ(rig.reserve(b, 9), 9);
  rig.close(a);
  EXPECT_EQ(rig.run(), 9);
  EXPECT_EQ(rig.held(counting(9)), 0);
  EXPECT_EQ(rig.held(counting(9, 100)), 9);
}

TEST(KvCache, OthersMayJoinAndPartWhileRowsAreReserved) {
  Rig rig(32);
  const SequenceId a = rig.open(counting(12));
  EXPECT_EQ(rig.reserve(a, 10), 10);
  const SequenceId b = rig.open(counting(6) + Tokens{70, 71, 72});  // splits what a is writing
  const SequenceId c = rig.fork(a);
  rig.close(c);
  EXPECT_EQ(rig.run(), 10);
  EXPECT_EQ(rig.computed(a), 10);
  EXPECT_EQ(rig.computed(b), 6);
  EXPECT_EQ(rig.finish(a), 2);
  EXPECT_EQ(rig.finish(b), 3);
}

TEST(KvCache, ATokenMayBeAppendedBeforeTheCommit) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(3));
  rig.reserve(a, 3);
  Step& step = rig.cache->plan(Partition::kTwoPhase);
  rig.compute(step);
  rig.append(a, 50);
  rig.cache->commit();
  rig.check();
  EXPECT_EQ(rig.computed(a), 3);
  EXPECT_EQ(rig.finish(a), 1);
}

// ---- forks

TEST(KvCache, AForkSharesEverythingAndEvaluatesNothing) {
  for (int64_t n = 1; n <= 9; ++n) {
    SCOPED_TRACE(n);
    Rig rig(16);
    const SequenceId a = rig.open(counting(n));
    rig.finish(a);
    const SequenceId b = rig.fork(a);
    EXPECT_EQ(rig.computed(b), n);
    EXPECT_EQ(rig.cache->stats().tokens_copied, n % 4);
    rig.append(a, 100);
    rig.append(b, 200);
    EXPECT_EQ(rig.finish(a), 1);
    EXPECT_EQ(rig.finish(b), 1);
    EXPECT_EQ(rig.columns_held(), n / 4 + 2);
  }
}

TEST(KvCache, AForkOfAnUnfinishedPromptWaitsAndEvaluatesItsLastToken) {
  for (const int64_t n : {5, 8}) {
    SCOPED_TRACE(n);
    Rig rig(16);
    const SequenceId a = rig.open(counting(n));
    rig.reserve(a, 2);
    rig.run();
    const SequenceId b = rig.fork(a);
    EXPECT_TRUE(rig.blocked(b));
    EXPECT_EQ(rig.finish(a), n - 2);
    EXPECT_EQ(rig.finish(b), 1);
  }
}

TEST(KvCache, AForkWithoutRoomCopiesLater) {
  Rig rig(2);
  const SequenceId a = rig.open(counting(6));
  rig.finish(a);
  const SequenceId b = rig.fork(a);  // both columns are in use
  EXPECT_EQ(rig.cache->stats().tokens_copied, 0);
  EXPECT_EQ(rig.computed(b), 6);
  rig.append(b, 100);
  EXPECT_FALSE(rig.reserve(b, 1).has_value());
  rig.close(a);
  EXPECT_EQ(rig.computed(b), 6);
  EXPECT_EQ(rig.finish(b), 1);  // it took over the page that the original left
  EXPECT_EQ(rig.cache->stats().tokens_copied, 0);
  EXPECT_EQ(rig.columns_held(), 2);
}

// ---- looking

TEST(KvCache, MatchTellsHeldFromPlanned) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(10));
  rig.reserve(a, 5);
  rig.run();
  const MatchInfo info = rig.cache->match("m", counting(20));
  EXPECT_EQ(info.held, 5);
  EXPECT_EQ(info.planned, 10);
  EXPECT_EQ(rig.cache->match("m", {}).planned, 0);
  EXPECT_EQ(rig.cache->match("unknown", counting(3)).held, 0);
}

TEST(KvCacheDeath, CallsOutOfTurn) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(3));
  EXPECT_DEATH(rig.cache->commit(), "planned_");
  rig.reserve(a, 1);
  EXPECT_DEATH(rig.cache->reserve(a, 1), "rows == 0");
  rig.cache->plan(Partition::kTwoPhase);
  EXPECT_DEATH(rig.cache->open("m", counting(3)), "planned_");
  EXPECT_DEATH(rig.cache->close(a), "planned_");
  EXPECT_DEATH(rig.cache->progress(99), "sequences_");
}

}  // namespace
}  // namespace coppice::kv
