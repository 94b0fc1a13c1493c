// Budget, admission, reclaim, pins. Pages hold 4 tokens; room is counted in columns: a page for
// every (layer, KV head).
#include <gtest/gtest.h>

#include <chrono>

#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

void leave(Rig& rig, const Tokens& tokens) {
  const SequenceId id = rig.open(tokens);
  rig.finish(id);
  rig.close(id);
}

TEST(KvRoom, CreateNamesWhatIsWrong) {
  PageBackend backend(4);
  KvCacheOptions options{.layers = 2, .kv_heads = 2, .head_dim = 2, .kv_type = DType::kF32};
  auto cache = KvCache::create(backend, options, least_recently_used());
  ASSERT_FALSE(cache.has_value());
  EXPECT_EQ(cache.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(cache.error().message.find("budget"), std::string::npos);

  options.budget_bytes = 4 * 64 - 1;  // four pages of 64 bytes hold the first four tokens
  cache = KvCache::create(backend, options, least_recently_used());
  ASSERT_FALSE(cache.has_value());
  EXPECT_EQ(cache.error().code, ErrorCode::kTooLarge);
  EXPECT_NE(cache.error().message.find("255"), std::string::npos);

  options.budget_bytes = 4 * 64;
  EXPECT_TRUE(KvCache::create(backend, options, least_recently_used()).has_value());
  options.layers = 0;
  cache = KvCache::create(backend, options, least_recently_used());
  ASSERT_FALSE(cache.has_value());
  EXPECT_NE(cache.error().message.find("layers"), std::string::npos);
}

TEST(KvRoom, StatsCountBytes) {
  Rig rig(10);
  const SequenceId a = rig.open(counting(5));
  rig.finish(a);
  const KvStats s = rig.cache->stats();
  EXPECT_EQ(s.bytes_per_token, 2 * 2 * 2 * 2 * 4);
  EXPECT_EQ(s.bytes_held, rig.cache->worst_case_bytes(5));
  EXPECT_EQ(s.bytes_held, 8 * s.bytes_per_token);
  EXPECT_EQ(s.pages_total, 40);
  EXPECT_EQ(s.pages_free, 32);
  EXPECT_EQ(s.tokens_held, 5);
  EXPECT_EQ(s.live_sequences, 1);
  EXPECT_EQ(s.references, 1);
  EXPECT_EQ(rig.cache->worst_case_bytes(0), 0);
}

// ---- reclaim

TEST(KvRoom, TheLeastRecentlyUsedLeafGoesFirst) {
  Rig rig(6);
  leave(rig, counting(8, 100));
  leave(rig, counting(8, 200));
  leave(rig, counting(8, 300));
  leave(rig, counting(8, 100));  // used again
  const SequenceId a = rig.open(counting(4));
  rig.finish(a);
  EXPECT_EQ(rig.held(counting(8, 200)), 0);
  EXPECT_EQ(rig.held(counting(8, 100)), 8);
  EXPECT_EQ(rig.held(counting(8, 300)), 8);
  EXPECT_EQ(rig.cache->stats().tokens_reclaimed, 8);
}

TEST(KvRoom, LeavesGoBeforeWhatTheyHangOn) {
  Rig rig(6);
  leave(rig, counting(8) + counting(4, 100));
  leave(rig, counting(8) + counting(4, 200));
  const SequenceId a = rig.open(counting(12, 500));
  rig.finish(a);
  EXPECT_EQ(rig.held(counting(8) + counting(4, 200)), 12);
  EXPECT_EQ(rig.held(counting(8) + counting(4, 100)), 8);
  rig.append(a, 1);
  rig.finish(a);
  EXPECT_EQ(rig.held(counting(8) + counting(4, 200)), 8);  // the prefix outlives both
}

TEST(KvRoom, APrefixUsedSinceOutlivesTheOneLeafBelowIt) {
  Rig rig(6);
  leave(rig, counting(8) + counting(4, 100));
  leave(rig, counting(4, 800));
  rig.close(rig.open(counting(8) + Tokens{50}));  // the prefix was wanted again, the leaf was not
  EXPECT_EQ(rig.finish_open(counting(12, 900)), 12);
  EXPECT_EQ(rig.held(counting(8) + counting(4, 100)), 8);
}

TEST(KvRoom, OfLeavesUsedInTheSameStepTheDeeperGoesFirst) {
  Rig rig(7);
  leave(rig, counting(8) + counting(4, 200));
  const SequenceId shallow = rig.open(counting(8, 300));
  const SequenceId deep = rig.open(counting(8) + counting(8, 100));
  rig.finish(shallow);
  rig.finish(deep);
  rig.close(shallow);
  rig.close(deep);
  EXPECT_EQ(rig.finish_open(counting(8, 700)), 8);
  EXPECT_EQ(rig.held(counting(8, 300)), 8);
  EXPECT_EQ(rig.held(counting(8) + counting(8, 100)), 8);
}

TEST(KvRoom, APolicyMayOrderOtherwise) {
  class ShortestFirst : public ReclaimPolicy {
   public:
    bool before(const Candidate& a, const Candidate& b) const override {
      return a.tokens < b.tokens;
    }
  };
  PageBackend backend(4);
  const Shape4 shape;
  KvCacheOptions options{.layers = 2, .kv_heads = 2, .head_dim = 2, .kv_type = DType::kF32};
  options.budget_bytes = 4 * shape.column_bytes();
  Rig rig(4);
  rig.cache = *KvCache::create(rig.backend, options, std::make_unique<ShortestFirst>());
  leave(rig, counting(8, 100));
  leave(rig, counting(4, 200));
  leave(rig, counting(4, 300));
  leave(rig, counting(4, 400));
  EXPECT_EQ(rig.held(counting(8, 100)), 8);
  EXPECT_EQ(rig.held(counting(4, 400)), 4);
  EXPECT_EQ(rig.held(counting(4, 200)) + rig.held(counting(4, 300)), 4);
}

TEST(KvRoom, AReservationShrinksToTheRoomThereIs) {
  Rig rig(3);
  const SequenceId a = rig.open(counting(20));
  EXPECT_EQ(rig.reserve(a, 20), 12);
  rig.run();
  EXPECT_FALSE(rig.reserve(a, 1).has_value());
  EXPECT_FALSE(rig.blocked(a));
  EXPECT_EQ(rig.columns_held(), 3);
}

TEST(KvRoom, WhatIsCopiedFromIsNotReclaimedForTheCopy) {
  Rig rig(3);
  leave(rig, counting(4, 900));
  leave(rig, counting(7));
  // Three columns are held by two leaves; the newcomer shares seven tokens with the younger one.
  const SequenceId a = rig.open(counting(7) + Tokens{50, 51});
  EXPECT_EQ(rig.finish(a), 2);
  EXPECT_EQ(rig.held(counting(4, 900)), 0);
}

TEST(KvRoom, TheLastLeafIsTakenOverWhereThereIsNoRoomToCopyIt) {
  Rig rig(2);
  leave(rig, counting(7));
  const SequenceId a = rig.open(counting(6) + Tokens{50});
  EXPECT_EQ(rig.computed(a), 6);
  EXPECT_EQ(rig.finish(a), 1);
  EXPECT_EQ(rig.held(counting(7)), 6);
  EXPECT_EQ(rig.columns_held(), 2);
  EXPECT_EQ(rig.cache->stats().tokens_reclaimed, 1);  // the seventh
  EXPECT_EQ(rig.cache->stats().tokens_copied, 0);
}

TEST(KvRoom, ALeafThatEndsInsideAnothersPromptIsTakenOver) {
  Rig rig(8);
  const SequenceId a = rig.open(counting(6));
  const SequenceId b = rig.open(counting(6) + Tokens{50});
  rig.finish(a);
  rig.close(a);
  EXPECT_EQ(rig.finish(b), 1);
  EXPECT_EQ(rig.cache->stats().tokens_copied, 0);
  EXPECT_EQ(rig.cache->stats().tokens_reclaimed, 0);
  EXPECT_EQ(rig.columns_held(), 2);
}

TEST(KvRoom, FlushLeavesWhatIsInUse) {
  Rig rig(16);
  leave(rig, counting(8) + counting(8, 100));
  const SequenceId a = rig.open(counting(8) + Tokens{1});
  rig.finish(a);
  rig.cache->flush();
  rig.check();
  EXPECT_EQ(rig.columns_held(), 3);
  rig.close(a);
  rig.cache->flush();
  rig.check();
  EXPECT_EQ(rig.columns_held(), 0);
  EXPECT_EQ(rig.cache->stats().nodes, 0);
}

// ---- admission

TEST(KvRoom, AdmissionCountsWhatIsShared) {
  Rig rig(6);
  const SequenceId a = rig.open(counting(12) + Tokens{100});
  const SequenceId b = rig.open(counting(12) + Tokens{200});
  EXPECT_TRUE(rig.cache->admit(a, 16));  // three shared columns and one
  EXPECT_TRUE(rig.cache->admit(b, 20));  // two more
  const SequenceId c = rig.open(counting(1, 900));
  EXPECT_FALSE(rig.cache->admit(c, 1));
  rig.close(c);
  rig.close(a);
  EXPECT_TRUE(rig.cache->admit(b, 24));
  EXPECT_FALSE(rig.cache->admit(b, 25));
}

TEST(KvRoom, AFailedAdmissionLeavesTheFormerPromise) {
  Rig rig(4);
  const SequenceId a = rig.open(counting(4));
  EXPECT_TRUE(rig.cache->admit(a, 8));
  EXPECT_FALSE(rig.cache->admit(a, 17));
  const SequenceId b = rig.open(counting(8, 100));
  EXPECT_TRUE(rig.cache->admit(b, 8));
}

TEST(KvRoom, NoNumberOfTokensIsTooLargeToCompare) {
  Rig rig(10);
  const SequenceId a = rig.open(counting(5));
  EXPECT_TRUE(rig.cache->admit(a, 40));
  const int64_t column = rig.shape_.column_bytes();
  for (const int shift : {31, 32, 33, 34, 35, 36, 40}) {
    const int64_t tokens = int64_t{1} << shift;
    EXPECT_FALSE(rig.cache->admit(a, tokens)) << shift;
    EXPECT_FALSE(rig.cache->admit(a, tokens + 40)) << shift;
    EXPECT_EQ(rig.cache->worst_case_bytes(tokens), tokens / 4 * column) << shift;
  }
}

TEST(KvRoom, NobodyTakesWhatWasPromisedToAnother) {
  Rig rig(4);
  const SequenceId a = rig.open(counting(4));
  EXPECT_TRUE(rig.cache->admit(a, 12));
  const SequenceId b = rig.open(counting(16, 100));  // not admitted
  EXPECT_EQ(rig.reserve(b, 16), 4);
  rig.run();
  EXPECT_FALSE(rig.reserve(b, 1).has_value());
  rig.finish(a);
  for (TokenId t = 0; t < 8; ++t) {
    rig.append(a, t);
    EXPECT_EQ(rig.finish(a), 1);
  }
  rig.append(a, 9);
  EXPECT_FALSE(rig.reserve(a, 1).has_value());  // beyond the promise, and nothing is left
}

// Nanoseconds that a reservation takes beside so many others, each within its own promise.
double reservation_cost(int32_t sequences) {
  Rig rig(int64_t{10} * sequences, {.page_slots = 4, .layers = 1, .kv_heads = 1, .head_dim = 2});
  std::vector<SequenceId> ids;
  for (TokenId i = 0; i < sequences; ++i) {
    ids.push_back(rig.cache->open("m", counting(36, 100 * i)));
    CHECK(rig.cache->admit(ids.back(), 40));
  }
  double least = 1e18;
  for (int64_t step = 0; step < 9; ++step) {
    const auto before = std::chrono::steady_clock::now();
    for (const SequenceId id : ids) CHECK(rig.cache->reserve(id, 4));
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - before;
    least = std::min(least, took.count() / sequences);
    rig.cache->plan(Partition::kTwoPhase);
    rig.cache->commit();
  }
  return least;
}

TEST(KvRoom, AReservationWithinItsPromiseAsksNobodyElse) {
  // Were all promises added up for each, it would be 32 times.
  EXPECT_LT(reservation_cost(1024), 8 * reservation_cost(32));
}

TEST(KvRoom, AnUnpromisedWriterTakesWhatAFollowerWasPromised) {
  Rig rig(4);
  const SequenceId writer = rig.open(counting(9));
  const SequenceId follower = rig.open(counting(8) + Tokens{50});
  const SequenceId other = rig.open(counting(4, 100));
  EXPECT_TRUE(rig.cache->admit(follower, 9));  // two columns of the writer's, one of its own
  EXPECT_TRUE(rig.cache->admit(other, 4));
  EXPECT_EQ(rig.reserve(writer, 9), 8);  // not the column for its last token
  rig.run();
  EXPECT_EQ(rig.finish(follower), 1);
  EXPECT_EQ(rig.finish(other), 4);
}

TEST(KvRoom, TokensBeyondOnesOwnPromiseDoNotCountAsPromised) {
  Rig rig(4);
  const SequenceId a = rig.open(counting(4));
  const SequenceId b = rig.open(counting(4, 100));
  EXPECT_TRUE(rig.cache->admit(a, 4));
  EXPECT_TRUE(rig.cache->admit(b, 12));
  rig.finish(a);
  rig.append(a, 50);
  EXPECT_FALSE(rig.reserve(a, 1).has_value());
  rig.finish(b);
  for (TokenId t = 0; t < 8; ++t) {
    rig.append(b, t);
    EXPECT_EQ(rig.finish(b), 1);
  }
}

TEST(KvRoom, ALeafThatWasPromisedIsNotTakenOver) {
  Rig rig(3);
  leave(rig, counting(7));
  const SequenceId b = rig.open(counting(6) + Tokens{50});  // would copy two slots of the leaf
  const SequenceId c = rig.open(counting(8, 100));
  EXPECT_TRUE(rig.cache->admit(c, 8));  // the free column and the leaf's
  EXPECT_FALSE(rig.blocked(b));
  EXPECT_FALSE(rig.reserve(b, 1).has_value());
  EXPECT_EQ(rig.finish(c), 8);
}

TEST(KvRoom, APinOnWhatWasPromisedShowsAndCanBeTakenBack) {
  Rig rig(4);
  leave(rig, counting(8, 100));
  const SequenceId a = rig.open(counting(12));
  EXPECT_TRUE(rig.cache->admit(a, 12));  // two free columns and one of the leaf's
  EXPECT_EQ(rig.cache->overpromised_pages(), 0);
  const auto small = rig.cache->pin("m", counting(4, 100), 3);
  EXPECT_EQ(rig.cache->overpromised_pages(), 0);
  const auto all = rig.cache->pin("m", counting(8, 100), 0);
  EXPECT_EQ(rig.cache->overpromised_pages(), 4);  // one column
  EXPECT_EQ(rig.cache->stats().pins, 2);
  EXPECT_EQ(rig.cache->stats().expiring_pins, 1);
  EXPECT_TRUE(rig.cache->unpin(all.id));
  EXPECT_EQ(rig.cache->overpromised_pages(), 0);
  EXPECT_EQ(rig.finish(a), 12);
  EXPECT_TRUE(rig.cache->unpin(small.id));
  EXPECT_EQ(rig.cache->stats().expiring_pins, 0);
}

TEST(KvRoom, AdmissionCountsOnWhatCanBeReclaimed) {
  Rig rig(4);
  leave(rig, counting(16, 100));
  const SequenceId a = rig.open(counting(16));
  EXPECT_TRUE(rig.cache->admit(a, 16));
  EXPECT_EQ(rig.held(counting(16, 100)), 16);  // admission itself frees nothing
  EXPECT_EQ(rig.finish(a), 16);
}

// ---- budget

TEST(KvRoom, AShrunkenBudgetReclaimsThenAsksForMore) {
  Rig rig(8, {}, 12);
  leave(rig, counting(8, 100));
  const SequenceId a = rig.open(counting(16));
  rig.finish(a);
  const int64_t column = rig.shape_.column_bytes();
  EXPECT_TRUE(rig.cache->set_budget(4 * column));
  EXPECT_EQ(rig.columns_held(), 4);
  EXPECT_FALSE(rig.cache->set_budget(3 * column));
  EXPECT_EQ(rig.columns_held(), 4);
  rig.append(a, 1);
  EXPECT_FALSE(rig.reserve(a, 1).has_value());
  rig.close(a);
  EXPECT_LE(rig.columns_held(), 3);  // what the close freed went at once
  EXPECT_TRUE(rig.cache->set_budget(3 * column));
  EXPECT_TRUE(rig.cache->set_budget(100 * column));
  EXPECT_EQ(rig.cache->stats().pages_total, 12 * 4);  // no more than was provided for
  rig.check();
}

// ---- pins

TEST(KvRoom, APinProtectsItsPrefixAndNoMore) {
  Rig rig(6);
  leave(rig, counting(16));
  const auto pin = rig.cache->pin("m", counting(6), 0);
  EXPECT_EQ(pin.tokens, 6);
  rig.check();
  const SequenceId a = rig.open(counting(16, 100));
  EXPECT_EQ(rig.finish(a), 16);
  EXPECT_EQ(rig.held(counting(16)), 8);  // the two pages that the pin touches
  rig.close(a);
  EXPECT_TRUE(rig.cache->unpin(pin.id));
  EXPECT_FALSE(rig.cache->unpin(pin.id));
  rig.check();
  rig.cache->flush();
  EXPECT_EQ(rig.columns_held(), 0);
}

TEST(KvRoom, APinOnARunningSequenceOutlivesItWithoutItsAnswer) {
  Rig rig(8);
  const SequenceId a = rig.open(counting(4));
  rig.finish(a);
  EXPECT_EQ(rig.cache->pin("m", counting(4), 0).tokens, 4);
  for (TokenId t = 0; t < 8; ++t) {
    rig.append(a, 50 + t);
    rig.finish(a);
  }
  rig.close(a);
  rig.cache->flush();
  rig.check();
  EXPECT_EQ(rig.columns_held(), 1);
}

TEST(KvRoom, PinsExpireByTheCallersClock) {
  Rig rig(8);
  leave(rig, counting(4));
  rig.cache->expire(100);
  const auto pin = rig.cache->pin("m", counting(4), 5);
  rig.cache->expire(104.9);
  EXPECT_EQ(rig.cache->stats().pins, 1);
  rig.cache->expire(105);
  EXPECT_EQ(rig.cache->stats().pins, 0);
  EXPECT_FALSE(rig.cache->unpin(pin.id));
  EXPECT_EQ(rig.cache->pin("m", counting(4, 700), 0).id, 0u);
  rig.check();
}

TEST(KvRoom, PinsFollowTheirTokensThroughSplitsAndJoins) {
  Rig rig(32);
  const SequenceId a = rig.open(counting(14));
  rig.finish(a);
  const auto deep = rig.cache->pin("m", counting(14), 0);
  const auto shallow = rig.cache->pin("m", counting(3), 0);
  const SequenceId b = rig.open(counting(9) + counting(4, 100));
  rig.finish(b);
  rig.close(a);
  rig.close(b);
  EXPECT_TRUE(rig.cache->unpin(deep.id));
  rig.cache->flush();
  rig.check();
  EXPECT_EQ(rig.held(counting(14)), 4);
  EXPECT_TRUE(rig.cache->unpin(shallow.id));
  rig.cache->flush();
  EXPECT_EQ(rig.columns_held(), 0);
}

}  // namespace
}  // namespace coppice::kv
