#include "engine/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "engine/output_text.h"
#include "engine/test_harness.h"

namespace coppice::engine {
namespace {

struct Outcome {
  std::string text;
  bool stopped = false;
  bool operator==(const Outcome&) const = default;
};

// Looks at every prefix of the whole text for a stop string that ends there.
Outcome naive(const std::string& text, const std::vector<std::string>& stops, bool include) {
  for (size_t end = 0; end <= text.size(); ++end) {
    size_t begin = std::string::npos;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        begin = std::min(begin, end - stop.size());
      }
    }
    if (begin != std::string::npos) return {text.substr(0, include ? end : begin), true};
  }
  return {text, false};
}

Outcome in_pieces(const std::vector<std::string>& pieces, const std::vector<std::string>& stops,
                  bool include) {
  StopMatcher matcher(stops, include);
  Outcome out;
  for (const std::string& piece : pieces) {
    const StopMatcher::Output step = matcher.push(piece);
    out.text += step.text;
    if (step.stopped) return {out.text, true};
  }
  out.text += matcher.finish();
  return out;
}

TEST(StopMatcher, WithoutStopsTextPassesAtOnce) {
  StopMatcher matcher({}, false);
  EXPECT_EQ(matcher.push("abc").text, "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStop) {
  StopMatcher matcher({"\n\nUser:"}, false);
  EXPECT_EQ(matcher.push("Hi.\n").text, "Hi.");
  EXPECT_EQ(matcher.push("\nUs").text, "");
  EXPECT_EQ(matcher.push("ual").text, "\n\nUsual");
  EXPECT_EQ(matcher.push("\n").text, "");
  EXPECT_EQ(matcher.finish(), "\n");
}

TEST(StopMatcher, FindsAStopAcrossPiecesAndDropsWhatFollows) {
  StopMatcher matcher({"END"}, false);
  EXPECT_EQ(matcher.push("abE").text, "ab");
  EXPECT_EQ(matcher.push("N").text, "");
  const StopMatcher::Output last = matcher.push("Dxyz");
  EXPECT_TRUE(last.stopped);
  EXPECT_EQ(last.text, "");
}

TEST(StopMatcher, CanKeepTheStop) {
  StopMatcher matcher({"END"}, true);
  const StopMatcher::Output out = matcher.push("abENDxyz");
  EXPECT_TRUE(out.stopped);
  EXPECT_EQ(out.text, "abEND");
}

// A stop that ends first wins even when a longer one began before it.
TEST(StopMatcher, TheMatchThatEndsFirstWins) {
  EXPECT_EQ(in_pieces({"abcX"}, {"abcX", "b"}, false), (Outcome{"a", true}));
  EXPECT_EQ(in_pieces({"zab"}, {"b", "ab"}, false), (Outcome{"z", true}));
}

TEST(StopMatcher, AnyCutOfAnyTextEndsAsTheWholeText) {
  std::mt19937 random(17);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  const auto word = [&](size_t most) {
    std::string out;
    for (size_t n = 1 + below(most); n > 0; --n) out += static_cast<char>('a' + below(2));
    return out;
  };
  int stopped = 0, passed = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = below(4); n > 0; --n) stops.push_back(word(6) + (below(3) == 0 ? "c" : ""));
    std::vector<std::string> pieces;
    std::string whole;
    for (size_t n = below(8); n > 0; --n) {
      pieces.push_back(below(6) == 0 ? "" : below(8) == 0 ? "c" : word(5));
      whole += pieces.back();
    }
    const bool include = below(2) == 0;
    const Outcome expected = naive(whole, stops, include);
    ASSERT_EQ(in_pieces(pieces, stops, include), expected) << whole;
    (expected.stopped ? stopped : passed) += 1;
  }
  EXPECT_GT(stopped, 1000);
  EXPECT_GT(passed, 1000);
}

// The replacement of half a character at the end is no text of the model's.
TEST(OutputText, NothingStopsOnceTheTokensEnd) {
  const ListTokenizer tokenizer({"STOP", "a\xc3", "\xa9"});
  Sampling sampling;
  sampling.stop = {"STOPa\xef\xbf\xbd", "\xef\xbf\xbd"};
  OutputText text(tokenizer, sampling);
  EXPECT_EQ(text.push(0, true).text, "");
  EXPECT_EQ(text.push(1, true).text, "");
  EXPECT_EQ(text.finish(), "STOPa\xef\xbf\xbd");

  OutputText whole(tokenizer, sampling);
  std::string all;
  for (const TokenId id : {0, 1, 2}) all += whole.push(id, true).text;
  EXPECT_EQ(all + whole.finish(), "STOPa\xc3\xa9");
}

}  // namespace
}  // namespace coppice::engine
