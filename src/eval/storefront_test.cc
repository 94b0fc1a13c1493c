#include "eval/storefront.h"

#include <array>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace coppice::storefront {
namespace {

TEST(Storefront, SameSeedSameShopOtherSeedOtherShop) {
  const Shop a = make_shop(7, 16, Split::kTrain), b = make_shop(7, 16, Split::kTrain);
  EXPECT_EQ(a.prompt(), b.prompt());
  EXPECT_NE(a.prompt(), make_shop(8, 16, Split::kTrain).prompt());
  ASSERT_EQ(a.questions().size(), b.questions().size());
  for (size_t i = 0; i < a.questions().size(); ++i) {
    EXPECT_EQ(a.questions()[i].text, b.questions()[i].text);
  }
}

// Pins the text itself: the trained model and the demo depend on every word of it.
TEST(Storefront, TextIsPinned) {
  const Shop shop = make_shop(1, 4, Split::kHeldOut);
  EXPECT_EQ(shop.prompt(),
            "The teal chain is at Star 57. The felt tile costs 87 euro 70. The felt tile needs "
            "form Ford 39. The new pan needs form Ford 64.\n");
  EXPECT_EQ(shop.questions()[0].text + shop.questions()[0].answer,
            "The new pan needs form? Ford 64");
}

TEST(Storefront, SplitsShareNoPair) {
  std::set<std::string> train, held_out;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    for (const Fact& fact : make_shop(seed, 32, Split::kTrain).facts()) {
      EXPECT_EQ(fact.split(), Split::kTrain);
      train.insert(fact.sentence());
    }
    for (const Fact& fact : make_shop(seed, 32, Split::kHeldOut).facts()) {
      EXPECT_EQ(fact.split(), Split::kHeldOut);
      held_out.insert(fact.sentence());
    }
  }
  EXPECT_GT(train.size(), 10000u);
  EXPECT_GT(held_out.size(), 10000u);
  for (const std::string& sentence : held_out) EXPECT_EQ(train.count(sentence), 0u) << sentence;
}

TEST(Storefront, EveryQuestionIsAnsweredByExactlyOneFact) {
  for (int n : {0, 1, 2, 16, 64, kMaxFacts}) {
    const Shop shop = make_shop(static_cast<uint64_t>(n) + 99, n, Split::kAny);
    ASSERT_EQ(static_cast<int>(shop.facts().size()), n);
    const auto questions = shop.questions();
    ASSERT_EQ(static_cast<int>(questions.size()), n);
    std::set<int> asked;
    for (const Question& question : questions) {
      asked.insert(question.fact);
      const std::string key = question.text.substr(0, question.text.size() - 1);
      const std::string stated = key + question.answer + ".";
      size_t stated_times = 0, key_times = 0;
      for (const Fact& fact : shop.facts()) {
        stated_times += fact.sentence() == stated;
        key_times += "The " + fact.key == key;
      }
      EXPECT_EQ(stated_times, 1u);
      EXPECT_EQ(key_times, 1u);
    }
    EXPECT_EQ(static_cast<int>(asked.size()), n);
  }
}

TEST(Storefront, EmptyShopIsOneNewline) {
  EXPECT_EQ(make_shop(3, 0, Split::kTrain).prompt(), "\n");
}

// No constant answer may do well: the commonest value of a kind stays rare.
TEST(Storefront, ValuesCannotBeGuessed) {
  std::map<std::string, int> counts;
  int total = 0;
  for (uint64_t seed = 0; seed < 500; ++seed) {
    for (const Fact& fact : make_shop(seed, 32, Split::kHeldOut).facts()) {
      ++counts[fact.value];
      ++total;
    }
  }
  for (const auto& [value, count] : counts) EXPECT_LE(count, total / 200) << value;
}

TEST(Random, IsSplitmix64) {
  Random random(0);  // the generator's published first outputs for seed 0
  EXPECT_EQ(random.next(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(random.next(), 0x6e789e6aa1b965f4u);
}

TEST(Random, BelowCoversItsRangeEvenly) {
  Random random(5);
  std::array<int, 7> seen{};
  for (int i = 0; i < 70000; ++i) ++seen[random.below(7)];
  for (int count : seen) EXPECT_NEAR(count, 10000, 500);
}

}  // namespace
}  // namespace coppice::storefront
