#include "eviction/summary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace coppice::eviction {
namespace {

using families::Family;
using families::Haystack;

Outcome outcome(const std::string& policy, double budget, const Task& task, uint64_t seed,
                std::vector<std::string> right) {
  Outcome out;
  out.key = {policy, budget, task, seed, 0};
  out.right = std::move(right);
  out.held = budget;
  return out;
}

TEST(Summary, EachTaskCountsAlikeAndLossesArePaired) {
  const Task a{Family::kNeedle, Haystack::kH1, 64, 2}, b{Family::kLookup, Haystack::kH3, 64, 2};
  const std::vector<Outcome> outcomes{
      outcome("full", 1, a, 1, {"1111", "1110"}), outcome("full", 1, b, 1, {"10", "10"}),
      outcome("tova", 0.5, a, 1, {"1100", "1111"}), outcome("tova", 0.5, b, 1, {"00", "00"})};
  const std::vector<Line> lines = summarise(outcomes, {});
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_DOUBLE_EQ(lines[0].exact, (7.0 / 8 + 0.5) / 2);
  EXPECT_FALSE(lines[0].loss);
  const Line& tova = lines[1];
  EXPECT_EQ(tova.tasks, 2);
  EXPECT_EQ(tova.contexts, 4);
  EXPECT_EQ(tova.asked, 12);
  EXPECT_DOUBLE_EQ(tova.exact, (6.0 / 8 + 0) / 2);
  ASSERT_TRUE(tova.loss);
  EXPECT_NEAR(tova.loss->points, 100 * ((7.0 - 6) / 8 + 0.5) / 2, 1e-9);
  EXPECT_EQ(tova.loss->broken, 4);
  EXPECT_EQ(tova.loss->mended, 1);
  // Task a: either context may be drawn twice, and two vary by half of what is to be told; those
  // of task b are alike.
  ASSERT_TRUE(tova.loss->interval);
  const double apart = 37.5 * std::sqrt(2.0);
  EXPECT_NEAR(tova.loss->interval->first, (12.5 - apart + 50) / 2, 1e-9);
  EXPECT_NEAR(tova.loss->interval->second, (12.5 + apart + 50) / 2, 1e-9);
  EXPECT_EQ(summarise(outcomes, {b})[1].asked, 4);
  EXPECT_EQ(full_rate(outcomes, a), 7.0 / 8);
  EXPECT_EQ(full_rate(outcomes, {Family::kUuid, Haystack::kH3, 64, 2}), std::nullopt);
}

TEST(Summary, WithoutTheWholeContextThereIsNoLoss) {
  const Task task{Family::kNeedle, Haystack::kH1, 64, 2};
  const std::vector<Outcome> outcomes{outcome("full", 1, task, 1, {"11"}),
                                      outcome("tova", 0.5, task, 1, {"10"}),
                                      outcome("tova", 0.5, task, 2, {"11"})};
  const std::vector<Line> lines = summarise(outcomes, {});
  EXPECT_EQ(lines[1].asked, 4);
  EXPECT_FALSE(lines[1].loss);
}

TEST(Summary, OtherQuestionsAreNotPaired) {
  const Task task{Family::kNeedle, Haystack::kH1, 64, 2};
  std::vector<Outcome> outcomes{outcome("full", 1, task, 1, {"11"}),
                                outcome("tova", 0.5, task, 1, {"10"})};
  ASSERT_TRUE(summarise(outcomes, {})[1].loss);
  EXPECT_FALSE(summarise(outcomes, {})[1].loss->interval);  // a context says nothing of others
  outcomes[1].asked = 1;
  EXPECT_FALSE(summarise(outcomes, {})[1].loss);
  outcomes[1].asked = 0;
  outcomes[1].right = {"1", "0"};
  EXPECT_FALSE(summarise(outcomes, {})[1].loss);
  outcomes[1].right = {"1"};
  EXPECT_FALSE(summarise(outcomes, {})[1].loss);
}

}  // namespace
}  // namespace coppice::eviction
