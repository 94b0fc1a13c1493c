// Every answer here is the reference tokenizer's (scripts/goldens/tokenizer.py).
#include <gtest/gtest.h>

#include "text/regex.h"
#include "text/test_files.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

using testing::golden_lines;
using testing::golden_tokenizer;

class Vocabulary : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Golden, Vocabulary, ::testing::ValuesIn(testing::kVocabularies),
                         [](const auto& one) { return std::string(one.param); });

TEST_P(Vocabulary, EncodesEveryTextAsTheReference) {
  const auto tokenizer = golden_tokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  const auto texts = golden_lines("texts.jsonl");
  const auto ids = golden_lines(std::string(GetParam()) + ".ids.jsonl");
  ASSERT_EQ(texts.size(), ids.size());
  ASSERT_GE(texts.size(), 2000u);
  int wrong = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto got = tokenizer->encode(texts[i].get<std::string>(), false);
    if (got == ids[i].get<std::vector<TokenId>>()) continue;
    if (++wrong > 5) break;
    ADD_FAILURE() << "text " << i << " " << texts[i].dump().substr(0, 300) << "\n got "
                  << Json(got).dump().substr(0, 300) << "\n not " << ids[i].dump().substr(0, 300);
  }
}

TEST_P(Vocabulary, DecodesEveryIdListAsTheReference) {
  const auto tokenizer = golden_tokenizer(GetParam());
  ASSERT_NE(tokenizer, nullptr);
  for (const Json& line : golden_lines(std::string(GetParam()) + ".decode.jsonl")) {
    const auto ids = line["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer->decode(ids, true), line["kept"].get<std::string>()) << line["ids"];
    EXPECT_EQ(tokenizer->decode(ids, false), line["plain"].get<std::string>()) << line["ids"];
  }
}

TEST(GoldenStages, EveryStageGivesTheReferencesIds) {
  const auto stages = golden_lines("stages.jsonl");
  ASSERT_GE(stages.size(), 60u);
  for (const Json& stage : stages) {
    SCOPED_TRACE(stage["name"].get<std::string>());
    Json config = Json::parse(testing::golden_file(stage["base"].get<std::string>() + ".json"));
    config.update(stage["patch"]);
    const auto tokenizer = testing::load_or_fail(config.dump(), "stages");
    if (tokenizer == nullptr) continue;
    for (const Json& one : stage["cases"]) {
      const auto text = one[0].get<std::string>();
      EXPECT_EQ(tokenizer->encode(text, false), one[1].get<std::vector<TokenId>>()) << one[0];
      if (one.size() > 2) {
        EXPECT_EQ(tokenizer->encode(text, true), one[2].get<std::vector<TokenId>>()) << one[0];
      }
    }
  }
}

// The characters that a pattern of one character matches.
std::vector<bool> matched_characters(const Regex& regex) {
  std::vector<bool> matched(0x110000, false);
  Regex::Matcher matcher(regex);
  std::vector<Cut> cuts;
  for (int32_t block = 0; block < 0x110000; block += 0x800) {
    if (block == 0xd800) continue;  // surrogates are no characters
    std::string text;
    std::vector<int32_t> at;  // per byte
    for (int32_t c = block; c < block + 0x800; ++c) {
      append_utf8(c, &text);
      at.resize(text.size(), c);
    }
    matcher.cut(text, &cuts);
    for (const Cut& cut : cuts) {
      if (cut.is_match) matched[at[cut.begin]] = true;
    }
  }
  return matched;
}

// Over all of Unicode: the two engines' own tables differ in some ten thousand characters.
TEST(GoldenClasses, PatternsMatchTheSameCharacters) {
  const Json classes = Json::parse(testing::golden_file("classes.json"));
  ASSERT_GE(classes.size(), 30u);
  for (const auto& [pattern, ranges] : classes.items()) {
    auto regex = Regex::compile(pattern, "classes.json");
    ASSERT_TRUE(regex) << regex.error().message;
    std::vector<bool> wanted(0x110000, false);
    for (size_t i = 0; i < ranges.size(); i += 2) {
      for (int32_t c = ranges[i]; c <= ranges[i + 1]; ++c) wanted[c] = true;
    }
    const std::vector<bool> matched = matched_characters(*regex);
    int wrong = 0;
    for (int32_t c = 0; c < 0x110000 && wrong < 5; ++c) {
      if (matched[c] == wanted[c]) continue;
      ++wrong;
      ADD_FAILURE() << pattern << " and U+" << std::hex << c << ": " << matched[c];
    }
  }
}

}  // namespace
}  // namespace coppice::text
