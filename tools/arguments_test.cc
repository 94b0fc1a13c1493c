#include "arguments.h"

#include <gtest/gtest.h>

namespace coppice::tools {
namespace {

using Words = std::vector<std::string>;

TEST(Arguments, FlagsMayBeSpelledAsFields) {
  EXPECT_EQ(spelled_with_dashes({"generate", "--max_tokens", "5", "--top_k=3", "-n", "2"}),
            (Words{"generate", "--max-tokens", "5", "--top-k=3", "-n", "2"}));
}

TEST(Arguments, ValuesStayAsTheyAre) {
  EXPECT_EQ(spelled_with_dashes({"-p", "a_b", "--stop=x_y", "--Not a_flag", "--", "--a_b"}),
            (Words{"-p", "a_b", "--stop=x_y", "--Not a_flag", "--", "--a_b"}));
}

TEST(Arguments, TheNearestNameIsFoundAndNoFarOne) {
  const Words names{"--prompt", "--prompt-file", "--version", "--n"};
  EXPECT_EQ(nearest("--promt", names), "--prompt");
  EXPECT_EQ(nearest("--verison", names), "--version");
  EXPECT_EQ(nearest("--prompt-fil", names), "--prompt-file");
  EXPECT_EQ(nearest("--frobnicate", names), std::nullopt);
  EXPECT_EQ(nearest("-x", names), std::nullopt);
}

TEST(Arguments, WholeNumbersKeepToTheirBounds) {
  const auto parse = [](const std::string& text) -> std::string {
    CLI::App app;
    std::optional<uint64_t> value;
    add_whole(app, "-s,--seed", value, Bounds<uint64_t>{1, ~uint64_t{0}}, "");
    try {
      app.parse(std::vector<std::string>{text, "-s"});
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return std::to_string(value.value());
  };
  EXPECT_EQ(parse("18446744073709551615"), "18446744073709551615");
  const std::string takes = "; it takes 1 to 18446744073709551615";
  EXPECT_EQ(parse("18446744073709551616"), "--seed is 18446744073709551616" + takes);
  EXPECT_EQ(parse("0"), "--seed is 0" + takes);
  EXPECT_EQ(parse("-1"), "--seed is -1" + takes);
  EXPECT_EQ(parse("1x"), "--seed is \"1x\"" + takes);
  EXPECT_EQ(parse(""), "--seed is \"\"" + takes);
}

TEST(Arguments, BatchedTakesTheSpellingsOfItsModel) {
  EXPECT_EQ(spelled_for_batched({"bench", "batched", "-npp", "1,2", "-npl=4", "-pps", "-n", "-m"}),
            (Words{"bench", "batched", "--npp", "1,2", "--npl=4", "--pps", "-n", "-m"}));
  const Words other{"generate", "-p", "-npp"};
  EXPECT_EQ(spelled_for_batched(other), other);
  EXPECT_EQ(spelled_for_batched({"bench"}), Words{"bench"});
}

TEST(Arguments, ListsKeepEveryItemWithinItsBounds) {
  const auto parse = [](const std::string& text) -> std::string {
    CLI::App app;
    std::vector<int32_t> values{7, 8};
    auto* option = add_wholes(app, "--rows", values, Bounds<int32_t>{1, 9}, "rows");
    EXPECT_EQ(option->get_description(), "rows (default 7,8)");
    try {
      app.parse(std::vector<std::string>{text, "--rows"});
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return join_list(values);
  };
  EXPECT_EQ(parse("1"), "1");
  EXPECT_EQ(parse("1,9,3"), "1,9,3");
  EXPECT_EQ(parse("1,10"), "--rows is 10; it takes 1 to 9");
  EXPECT_EQ(parse("1,,2"), "--rows is \"\"; it takes 1 to 9");
  EXPECT_EQ(parse("1,x"), "--rows is \"x\"; it takes 1 to 9");
}

}  // namespace
}  // namespace coppice::tools
