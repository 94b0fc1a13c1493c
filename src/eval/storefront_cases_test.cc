#include "eval/storefront_cases.h"

#include <set>

#include <gtest/gtest.h>

namespace coppice::storefront {
namespace {

TEST(StorefrontCases, UsersOfOneShopShareItsText) {
  const auto all = cases({.seed = 3, .facts = 48, .samples = 40, .per_shop = 32});
  ASSERT_EQ(all.size(), 40u);
  std::set<std::string> shops;
  for (const Case& c : all) {
    ASSERT_TRUE(c.prompt.ends_with(c.question));
    shops.insert(c.prompt.substr(0, c.prompt.size() - c.question.size()));
    // What is asked stands in the shop's text, and so does the answer.
    EXPECT_NE(c.prompt.find(c.answer + "."), std::string::npos) << c.prompt;
  }
  EXPECT_EQ(shops.size(), 2u);
}

TEST(StorefrontCases, ClosedBookAsksTheSameWithoutTheFacts) {
  const CaseOptions open{.seed = 9, .facts = 16, .samples = 20};
  CaseOptions closed = open;
  closed.closed_book = true;
  const auto with = cases(open), without = cases(closed);
  ASSERT_EQ(with.size(), without.size());
  for (size_t i = 0; i < with.size(); ++i) {
    EXPECT_EQ(with[i].question, without[i].question);
    EXPECT_EQ(with[i].answer, without[i].answer);
    EXPECT_EQ(without[i].prompt.find(without[i].answer), std::string::npos);
    EXPECT_LT(without[i].prompt.size(), with[i].question.size() + 8);
  }
}

TEST(StorefrontCases, AnotherSeedIsAnotherShop) {
  EXPECT_EQ(cases({.seed = 1, .samples = 4})[0].prompt, cases({.seed = 1, .samples = 4})[0].prompt);
  EXPECT_NE(cases({.seed = 1, .samples = 4})[0].prompt, cases({.seed = 2, .samples = 4})[0].prompt);
}

}  // namespace
}  // namespace coppice::storefront
