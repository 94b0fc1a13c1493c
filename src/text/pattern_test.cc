#include "text/pattern.h"

#include <gtest/gtest.h>

#include "text/regex.h"

namespace coppice::text {
namespace {

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  auto regex = Regex::compile(pattern, "pattern");
  EXPECT_TRUE(regex) << pattern << ": " << (regex ? "" : regex.error().message);
  std::vector<std::string> out;
  if (!regex) return out;
  std::vector<Cut> cuts;
  Regex::Matcher(*regex).cut(text, &cuts);
  for (const Cut& cut : cuts) {
    if (cut.is_match) out.push_back(text.substr(cut.begin, cut.end - cut.begin));
  }
  return out;
}

using Strings = std::vector<std::string>;

TEST(Pattern, KeepsWhatBothEnginesMeanAlike) {
  EXPECT_EQ(matches("a|b+", "xabbc"), (Strings{"a", "bb"}));
  EXPECT_EQ(matches("\\.\\-\\(", ".-("), (Strings{".-("}));
  EXPECT_EQ(matches("(?<=x)a(?!b)", "xabxa"), (Strings{"a"}));
}

TEST(Pattern, TranslatesWhatTheyMeanDifferently) {
  EXPECT_EQ(matches("\\p{N}{1,3}+", "12345"), (Strings{"12345"}));  // not possessive
  EXPECT_EQ(matches("(?:ab){2}?c", "abababc"), (Strings{"ababc"}));
  EXPECT_EQ(matches("x(?:ab){2}?c", "xcxabababc"), (Strings{"xc"}));  // optional, not lazy
  EXPECT_EQ(matches("x{,2}y", "xxxy"), (Strings{"xxy"}));
  EXPECT_EQ(matches("^a|b$", "a\nab\nb"), (Strings{"a", "a", "b", "b"}));
  EXPECT_EQ(matches("(?m:a.)", "a\n"), (Strings{"a\n"}));
  EXPECT_EQ(matches("\\v", "\x0b\n"), (Strings{"\x0b"}));
  EXPECT_EQ(matches("\\h+", "xfA0g "), (Strings{"fA0"}));
  EXPECT_EQ(matches("\\s+", "a\u180e \u3000"), (Strings{" \u3000"}));
  EXPECT_EQ(matches("[^a[bc]]+", "abxcy"), (Strings{"x", "y"}));
  EXPECT_EQ(matches("\\u00e9|\\x41", "\u00e9A"), (Strings{"\u00e9", "A"}));
  EXPECT_EQ(matches("[[0-9]x-]+", "1-x"), (Strings{"1-x"}));
  EXPECT_EQ(matches("a{x}", "a{x}"), (Strings{"a{x}"}));
  EXPECT_EQ(matches("(?i)E", "eE"), (Strings{"e", "E"}));
}

TEST(Pattern, RefusesWhatWouldChangeMeaning) {
  for (const char* pattern :
       {"[a&&b]",   "\\bword",     "\\G",    "\\K",     "\\R",    "\\X",     "(?x) a",
        "a(?i)b",   "(?<name>a)",  "(a)\\1", "\\k<n>",  "(?#c)",  "(?~a)",   "(*UTF)a",
        "[a[^b]]",  "[[:alpha:]]", "\\xe9",  "\\x{zz}", "\\u12",  "[]a]",    "\\p",
        "\\p{a b}", "a)",          "[a",     "a\\",     "[a\\",   "[a-[b]]", "[[b]-c]",
        "\\Q",      "\\o{7}",      "(?",     "[\\W]",   "\\x{41", "\\p{L"}) {
    const auto regex = Regex::compile(pattern, "the.key");
    ASSERT_FALSE(regex) << pattern;
    EXPECT_EQ(regex.error().code, ErrorCode::kUnsupported) << regex.error().message;
    EXPECT_EQ(regex.error().message.find("the.key"), 0u) << regex.error().message;
  }
}

TEST(Pattern, BrokenOnesAndUnknownPropertiesAreNamed) {
  const auto broken = Regex::compile("(a", "the.key");
  ASSERT_FALSE(broken);
  EXPECT_EQ(broken.error().code, ErrorCode::kCorrupt);
  const auto unknown = Regex::compile("\\p{Nonsense}", "the.key");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(Regex::compile("[a\xff]", "the.key"));
  EXPECT_FALSE(Regex::compile("\xff", "the.key"));
}

// Exponential in any backtracking engine: the step budget ends it, and no text is lost.
TEST(Pattern, RunawaySearchesEnd) {
  auto regex = Regex::compile("(a|aa)+$x|b", "pattern");
  ASSERT_TRUE(regex);
  const std::string text = "b" + std::string(200, 'a') + "b";
  std::vector<Cut> cuts;
  Regex::Matcher(*regex).cut(text, &cuts);
  size_t at = 0;
  for (const Cut& cut : cuts) {
    EXPECT_EQ(cut.begin, at);
    at = cut.end;
  }
  EXPECT_EQ(at, text.size());
  EXPECT_TRUE(cuts.front().is_match);
}

// Deep backtracking outgrows the JIT's small stack; the interpreter takes over.
TEST(Pattern, LongGroupsStillMatch) {
  const std::string text(200000, 'a');
  EXPECT_EQ(matches("(?:a|b(c))+", text), (Strings{text}));
}

}  // namespace
}  // namespace coppice::text
