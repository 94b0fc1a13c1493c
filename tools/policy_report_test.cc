#include "policy_report.h"

#include <gtest/gtest.h>

namespace coppice::tools {
namespace {

eviction::Outcome outcome(const std::string& policy, double budget, uint64_t seed,
                          std::vector<std::string> right) {
  eviction::Outcome out;
  out.key = {policy, budget, {families::Family::kNeedle, families::Haystack::kH1, 512, 2}, seed, 7};
  out.right = std::move(right);
  out.held = budget;
  out.kept = budget / 2;
  out.answer_tokens = 3.5;
  return out;
}

TEST(PolicyReport, AnOutcomeIsReadAsItWasWritten) {
  eviction::Outcome one = outcome("h2o+heads", 0.0625, 3, {"0110", "1"});
  one.threshold = -1.25;
  const auto read = outcome_of(outcome_json(one).dump());
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->key, one.key);
  EXPECT_EQ(read->right, one.right);
  EXPECT_EQ(read->held, one.held);
  EXPECT_EQ(read->kept, one.kept);
  EXPECT_EQ(read->answer_tokens, one.answer_tokens);
  EXPECT_EQ(read->threshold, one.threshold);

  eviction::Outcome chain;
  chain.key = {"full", 1, {families::Family::kMarkov, families::Haystack::kH3, 256, 2}, 1, 0};
  chain.nats = {1.5, 2.5};
  const auto again = outcome_of(outcome_json(chain).dump());
  ASSERT_TRUE(again);
  EXPECT_EQ(again->nats, chain.nats);
  EXPECT_FALSE(again->threshold);
}

TEST(PolicyReport, RefusesWhatIsNoOutcome) {
  const std::string good = outcome_json(outcome("full", 1, 1, {"1"})).dump();
  for (const std::string& bad : {std::string("{"), std::string("[]"),
                                 std::string("{\"policy\": 3}"), good.substr(0, good.size() - 2)}) {
    const auto read = outcome_of(bad);
    ASSERT_FALSE(read) << bad;
    EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  }
}

TEST(PolicyReport, SaysWhatWasLostAndHowSureThatIs) {
  const std::vector<eviction::Outcome> outcomes{outcome("full", 1, 1, {"1111", "1111"}),
                                                outcome("tova", 0.25, 1, {"1011", "1110"})};
  const std::string text =
      policy_markdown({"coppice eval", "m", "box", "2026-11-23", 16, 4}, outcomes);
  EXPECT_NE(text.find("| full | 100.00 | 100.0 | 50.0 | 100.0 | - |"), std::string::npos) << text;
  EXPECT_NE(text.find("| tova | 25.00 | 25.0 | 12.5 | 75.0 | 25.00 | 25.00 to 25.00 | 2 | 0 |"),
            std::string::npos)
      << text;
  // The base knows the task, so it is in the second table too.
  EXPECT_NE(text.find("answers to 95 % or more\n\nneedle h1 512\n"), std::string::npos) << text;
  const auto json = policy_json({"coppice eval", "m", "box", "2026-11-23", 16, 4}, outcomes);
  EXPECT_EQ(json["all"][1]["loss_points"], 25.0);
  EXPECT_EQ(json["known_h1_h2"]["tasks"][0], "needle h1 512");
  EXPECT_NE(policy_svg(outcomes).find("tova"), std::string::npos);
}

}  // namespace
}  // namespace coppice::tools
