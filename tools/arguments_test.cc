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

}  // namespace
}  // namespace coppice::tools
