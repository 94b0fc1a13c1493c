#include "eval/family_cases.h"

#include <set>

#include <gtest/gtest.h>

namespace coppice::families {
namespace {

TEST(FamilyCases, UsersOfOneContextShareItAndTheSeedIsAll) {
  CaseOptions options;
  options.family = Family::kLookup;
  options.samples = 20;
  options.per_context = 8;
  const auto all = cases(options), again = cases(options);
  ASSERT_EQ(all.size(), 20u);
  std::set<std::string> contexts;
  for (size_t i = 0; i < all.size(); ++i) {
    ASSERT_TRUE(all[i].prompt.ends_with(all[i].question));
    contexts.insert(all[i].prompt.substr(0, all[i].prompt.size() - all[i].question.size()));
    EXPECT_NE(all[i].prompt.find(all[i].answer + "."), std::string::npos);
    EXPECT_EQ(all[i].prompt, again[i].prompt);
    EXPECT_EQ(all[i].type, "lookup");
  }
  EXPECT_EQ(contexts.size(), 3u);
}

TEST(FamilyCases, CasesAreHeldOutWhateverTheTaskSays) {
  CaseOptions options;
  options.family = Family::kNeedle;
  options.samples = 6;
  options.task.split = Split::kTrain;
  for (const storefront::Case& c : cases(options)) {
    const std::string fact = c.question.substr(0, c.question.size() - 1) + c.answer + ".";
    EXPECT_EQ(storefront::split_of(fact), Split::kHeldOut) << fact;
  }
}

}  // namespace
}  // namespace coppice::families
