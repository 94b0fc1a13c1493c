#include "eviction/keep_mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

namespace coppice::eviction {
namespace {

std::vector<float> noise(uint32_t seed, int32_t n) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform;
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) x = uniform(random);
  return out;
}

TEST(KeepMask, CountsPagesByList) {
  KeepMask mask(2, 40, 0);
  std::fill_n(mask.list(0).begin(), 17, uint8_t{1});
  EXPECT_EQ(mask.kept(0), 17);
  EXPECT_EQ(mask.kept(1), 0);
  EXPECT_EQ(mask.pages(16), 2);
  EXPECT_DOUBLE_EQ(mask.held_share(16), 2.0 / 6);
  EXPECT_DOUBLE_EQ(mask.kept_share(), 17.0 / 80);
}

TEST(KeepMask, ABudgetIsWholePagesAndNoLessThanWhatIsProtected) {
  const Protection protection{.sinks = 4, .window = 16};
  EXPECT_EQ(make_budget(0.5, 8, 1000, 16, protection).pages, 8 * 63 / 2);
  EXPECT_EQ(make_budget(0.3, 8, 1000, 16, protection).pages, 151);  // 151.2
  EXPECT_EQ(make_budget(0.57, 1, 1600, 16, protection).pages, 57);  // 56.999...
  EXPECT_EQ(make_budget(0.01, 8, 1000, 16, protection).pages, 8 * 2);
  EXPECT_EQ(make_budget(0.01, 8, 10, 16, protection).pages, 8);  // shorter than the window
  EXPECT_EQ(make_budget(1.0, 8, 1000, 16, protection).pages, 8 * 63);
}

TEST(KeepMask, TheBestAreKeptWithinTheBudget) {
  constexpr int32_t kLists = 6;
  for (const int32_t tokens : {5, 16, 37, 200, 333}) {
    for (const double share : {0.06, 0.25, 0.5, 1.0}) {
      for (const int32_t group : {1, 2, kLists}) {
        SCOPED_TRACE(::testing::Message() << tokens << " " << share << " " << group);
        const Protection protection{.sinks = 2, .window = 9};
        const Budget budget = make_budget(share, kLists, tokens, 16, protection);
        const auto scores = noise(static_cast<uint32_t>(tokens), kLists * tokens);
        const KeepMask mask = keep_best(scores, tokens, budget, {group, 0});
        EXPECT_LE(mask.pages(16), budget.pages);
        double least = 2, most = -1;  // of what is kept by its score, and of what is not kept
        for (int32_t list = 0; list < kLists; ++list) {
          const auto flags = mask.list(list);
          double list_least = 2, list_most = -1;
          for (int32_t t = 0; t < tokens; ++t) {
            const double score = scores[static_cast<size_t>(list * tokens + t)];
            const bool guarded = t < 2 || t >= tokens - 9;
            EXPECT_TRUE(!guarded || flags[t] == 1);
            if (flags[t] == 0) list_most = std::max(list_most, score);
            if (flags[t] == 1 && !guarded) list_least = std::min(list_least, score);
          }
          EXPECT_GT(list_least, list_most);
          least = std::min(least, list_least);
          most = std::max(most, list_most);
          // Whole pages are filled while there are tokens.
          EXPECT_TRUE(mask.kept(list) == tokens || mask.kept(list) % 16 == 0);
          if (group == 1 && mask.kept(list) < tokens) {
            EXPECT_EQ(mask.kept(list) / 16, budget.pages_of(list));
          }
        }
        EXPECT_TRUE(share < 1 || mask.kept_share() == 1.0);
      }
    }
  }
}

TEST(KeepMask, ListsThatCompeteTakeFromEachOther) {
  constexpr int32_t kTokens = 160;
  std::vector<float> scores(2 * kTokens);
  for (int32_t t = 0; t < kTokens; ++t) scores[static_cast<size_t>(t)] = 1;  // all of list 0
  const Budget budget = make_budget(0.5, 2, kTokens, 16, {.sinks = 0, .window = 16});
  const KeepMask pooled = keep_best(scores, kTokens, budget, {2, 0});
  EXPECT_EQ(pooled.kept(0), 144);
  EXPECT_EQ(pooled.kept(1), 16);
  const KeepMask even = keep_best(scores, kTokens, budget, {1, 0});
  EXPECT_EQ(even.kept(0), 80);
  EXPECT_EQ(even.kept(1), 80);
  // Sure of a fifth of 5 pages, which is what is protected, and of two fifths.
  EXPECT_EQ(keep_best(scores, kTokens, budget, {2, 0.2}).kept(1), 16);
  EXPECT_EQ(keep_best(scores, kTokens, budget, {2, 0.4}).kept(1), 32);
  EXPECT_EQ(keep_best(scores, kTokens, budget, {2, 0.4}).kept(0), 128);
}

TEST(KeepMask, ListsOfOtherGroupsDoNotCompete) {
  constexpr int32_t kTokens = 160;
  std::vector<float> scores(4 * kTokens);
  for (int32_t t = 0; t < kTokens; ++t) scores[static_cast<size_t>(t)] = 1;  // all of list 0
  const Budget budget = make_budget(0.5, 4, kTokens, 16, {.sinks = 0, .window = 16});
  const KeepMask mask = keep_best(scores, kTokens, budget, {2, 0});
  EXPECT_EQ(mask.kept(0), 144);
  EXPECT_EQ(mask.kept(1), 16);
  EXPECT_EQ(mask.kept(2) + mask.kept(3), 160);
}

TEST(KeepMask, WhatDoesNotDivideGoesToTheFirstLists) {
  const Budget budget = make_budget(0.5, 3, 144, 16, {.sinks = 0, .window = 16});
  ASSERT_EQ(budget.pages, 13);  // of 27
  const std::vector<float> scores(3 * 144, 1.0f);
  for (const KeepMask& mask :
       {keep_best(scores, 144, budget, {1, 0}), keep_recent(144, budget, true)}) {
    EXPECT_EQ(mask.kept(0), 80);
    EXPECT_EQ(mask.kept(1), 64);
    EXPECT_EQ(mask.kept(2), 64);
  }
}

TEST(KeepMask, OfEqualScoresTheLaterTokenIsKept) {
  const std::vector<float> scores(64, 0.5f);
  const Budget budget = make_budget(0.5, 1, 64, 16, {.sinks = 1, .window = 1});
  const KeepMask mask = keep_best(scores, 64, budget, {1, 0});
  EXPECT_EQ(mask.kept(0), 32);
  EXPECT_EQ(mask.list(0)[0], 1);
  EXPECT_EQ(mask.list(0)[32], 0);
  EXPECT_EQ(mask.list(0)[33], 1);
}

TEST(KeepMask, WholeListsAreKeptInTheirOrder) {
  const std::vector<int32_t> order{2, 0, 3, 1};
  const Budget budget = make_budget(0.6, 4, 160, 16, {.sinks = 4, .window = 12});
  // 24 pages; every list takes 1, a whole one 9 more: two fit, and two more pages for the third.
  const KeepMask mask = keep_lists(order, 160, budget);
  EXPECT_EQ(mask.kept(2), 160);
  EXPECT_EQ(mask.kept(0), 160);
  for (const auto& [list, kept] : {std::pair(3, 48), std::pair(1, 16)}) {
    EXPECT_EQ(mask.kept(list), kept);
    EXPECT_EQ(mask.list(list)[3], 1);
    EXPECT_EQ(mask.list(list)[4], 0);
    EXPECT_EQ(mask.list(list)[163 - kept], 0);
    EXPECT_EQ(mask.list(list)[164 - kept], 1);
  }
  EXPECT_EQ(mask.pages(16), budget.pages);
  const Budget all = make_budget(1.0, 4, 160, 16, {.sinks = 4, .window = 12});
  EXPECT_EQ(keep_lists(order, 160, all).kept_share(), 1.0);
}

TEST(KeepMask, TheMostRecentFillTheBudget) {
  const Budget budget = make_budget(0.25, 3, 320, 16, {.sinks = 4, .window = 16});
  const KeepMask window = keep_recent(320, budget, false);
  const KeepMask streaming = keep_recent(320, budget, true);
  for (int32_t list = 0; list < 3; ++list) {
    EXPECT_EQ(window.kept(list), 80);
    EXPECT_EQ(streaming.kept(list), 80);
    EXPECT_EQ(window.list(list)[0], 0);
    EXPECT_EQ(window.list(list)[240], 1);
    EXPECT_EQ(streaming.list(list)[3], 1);
    EXPECT_EQ(streaming.list(list)[4], 0);
    EXPECT_EQ(streaming.list(list)[243], 0);
    EXPECT_EQ(streaming.list(list)[244], 1);
  }
}

}  // namespace
}  // namespace coppice::eviction
