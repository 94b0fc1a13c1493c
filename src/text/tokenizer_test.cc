#include "text/tokenizer.h"

#include <thread>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include "text/test_files.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

using testing::golden_tokenizer;

const Tokenizer& shared(const std::string& name) {
  static const auto gpt2 = golden_tokenizer("gpt2");
  static const auto llama3 = golden_tokenizer("llama3");
  static const auto qwen2 = golden_tokenizer("qwen2");
  return name == "gpt2" ? *gpt2 : name == "llama3" ? *llama3 : *qwen2;
}

std::string joined_bytes(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  std::string bytes;
  for (const TokenId id : ids) bytes += tokenizer.token_bytes(id);
  return bytes;
}

// Bytes that are often letters, spaces and halves of characters.
std::string lively_bytes(const std::vector<std::pair<uint8_t, uint8_t>>& picks) {
  static const std::string kParts[] = {
      " ",  "a",    "\xff",    "\xe4\xb8",     "\u4e2d", "\n",   "\xf0\x9f", "'s",
      "12", "\x80", "e\u0301", "\xed\xa0\x80", "Hello",  "\xc0", "!"};
  std::string out;
  for (const auto& [kind, byte] : picks) {
    if (kind % 4 == 0) {
      out.push_back(static_cast<char>(byte));
    } else {
      out += kParts[byte % std::size(kParts)];
    }
  }
  return out;
}

using Picks = std::vector<std::pair<uint8_t, uint8_t>>;

RC_GTEST_PROP(Tokenizer, NoByteIsLost, (const Picks& picks)) {
  const std::string bytes = lively_bytes(picks);
  const Tokenizer& tokenizer = shared("llama3");
  const auto ids = tokenizer.encode(bytes, false);
  RC_ASSERT(joined_bytes(tokenizer, ids) == bytes);
  std::string text;
  append_lossy(bytes, false, &text);
  RC_ASSERT(tokenizer.decode(ids, true) == text);
}

// Broken bytes do not disturb what stands before and behind them.
RC_GTEST_PROP(Tokenizer, BrokenBytesStandAlone, (const Picks& before, const Picks& behind)) {
  const Tokenizer& tokenizer = shared("qwen2");
  std::string left, right;
  append_lossy(lively_bytes(before), false, &left);
  append_lossy(lively_bytes(behind), false, &right);
  auto wanted = tokenizer.encode(left, false);
  const auto byte = tokenizer.encode("\xff", false);
  RC_ASSERT(byte.size() == 1u);
  RC_ASSERT(tokenizer.token_bytes(byte[0]) == "\xff");
  wanted.push_back(byte[0]);
  const auto rest = tokenizer.encode(right, false);
  wanted.insert(wanted.end(), rest.begin(), rest.end());
  RC_ASSERT(tokenizer.encode(left + "\xff" + right, false) == wanted);
}

RC_GTEST_PROP(IncrementalDecoder, EqualsTheWholeAndNeverEndsInHalfACharacter,
              (const std::vector<uint16_t>& picks)) {
  for (const char* name : testing::kVocabularies) {
    const Tokenizer& tokenizer = shared(name);
    std::vector<TokenId> ids;
    // Mostly tokens of one byte: characters fall apart and come together.
    for (const uint16_t pick : picks) {
      ids.push_back(pick % 8 == 0 ? pick % (tokenizer.vocab_size() + 2) - 1 : pick / 8 % 256);
    }
    IncrementalDecoder decoder(tokenizer);
    std::string text;
    for (const TokenId id : ids) {
      const std::string part = decoder.push(id);
      RC_ASSERT(valid_utf8_prefix(part) == part.size());
      text += part;
    }
    text += decoder.finish();
    RC_ASSERT(text == tokenizer.decode(ids, false));
  }
}

TEST(IncrementalDecoder, HoldsBackOnlyWhatIsUnfinished) {
  const Tokenizer& tokenizer = shared("gpt2");
  IncrementalDecoder decoder(tokenizer);
  const auto ids = tokenizer.encode("\xf0\x9f", false);  // two bytes of U+1F600, one token each
  ASSERT_EQ(ids.size(), 2u);
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.push(ids[1]), "");
  EXPECT_EQ(decoder.push(*tokenizer.find("a")),
            "\ufffd"
            "a");
  EXPECT_EQ(decoder.push(ids[0]), "");
  EXPECT_EQ(decoder.finish(), "\ufffd");
  EXPECT_EQ(decoder.finish(), "");
}

TEST(Tokenizer, SpecialTokensAreMarkedAndLeftOut) {
  const Tokenizer& tokenizer = shared("llama3");
  const auto bos = tokenizer.find("<|begin_of_text|>");
  ASSERT_TRUE(bos);
  EXPECT_TRUE(tokenizer.is_special(*bos));
  EXPECT_EQ(tokenizer.token_bytes(*bos), "");
  const auto ids = tokenizer.encode("Hi<|eot_id|>", true);
  EXPECT_EQ(ids.front(), *bos);
  EXPECT_EQ(ids.back(), tokenizer.find("<|eot_id|>"));
  EXPECT_EQ(tokenizer.decode(ids, false), "Hi");
  EXPECT_EQ(tokenizer.decode(ids, true), "<|begin_of_text|>Hi<|eot_id|>");
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreNothing) {
  const Tokenizer& tokenizer = shared("gpt2");
  for (const TokenId id : {-1, tokenizer.vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer.token_bytes(id), "");
    EXPECT_FALSE(tokenizer.is_special(id));
    EXPECT_EQ(tokenizer.decode({id}, true), "");
  }
  EXPECT_FALSE(tokenizer.find("no such token"));
  EXPECT_TRUE(tokenizer.find("\u0120"));
}

// Every stage at its worst: quadratic work would take long past the time-out.
TEST(Tokenizer, VeryLongTextsAreNoTrouble) {
  constexpr size_t kBytes = size_t{1} << 19;
  std::string marks;
  while (marks.size() < kBytes) marks += "\u0301\u0323";  // to be sorted: classes 230, 220
  std::string tokens;
  while (tokens.size() < kBytes) tokens += " <mas<|end";
  for (const std::string& text :
       {std::string(kBytes, 'x'), std::string(kBytes, ' '), std::string(kBytes, '\n') + "x",
        std::string(kBytes, '7'), std::string(kBytes, '!'), std::string(kBytes, '\xff'), marks,
        tokens}) {
    for (const char* name : testing::kVocabularies) {
      const Tokenizer& tokenizer = shared(name);
      EXPECT_GT(tokenizer.encode(text, false).size(), kBytes / 64);
    }
  }
}

// After bytes that are no characters nothing begins anew: no space is put there.
TEST(Tokenizer, APrefixSpaceStandsOnlyAtABeginning) {
  Json config = Json::parse(testing::golden_file("gpt2.json"));
  config["pre_tokenizer"]["add_prefix_space"] = true;
  const auto tokenizer = testing::load_or_fail(config.dump(), "prefix");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode("a\xff"
                                                "b",
                                                false),
                              true),
            " a\ufffd"
            "b");
  EXPECT_EQ(joined_bytes(*tokenizer, tokenizer->encode("a\xff"
                                                       "b",
                                                       false)),
            " a\xff"
            "b");
}

TEST(Tokenizer, ManyThreadsGetTheSameAnswers) {
  const Tokenizer& tokenizer = shared("qwen2");
  const auto texts = testing::golden_lines("texts.jsonl");
  const auto run = [&] {
    std::vector<std::vector<TokenId>> all;
    for (size_t i = 0; i < 400; ++i) {
      all.push_back(tokenizer.encode(texts[i].get<std::string>(), true));
      all.back().push_back(static_cast<TokenId>(tokenizer.decode(all.back(), true).size()));
    }
    return all;
  };
  const auto wanted = run();
  std::vector<std::vector<std::vector<TokenId>>> got(4);
  {
    std::vector<std::jthread> threads;
    for (auto& mine : got) threads.emplace_back([&] { mine = run(); });
  }
  for (const auto& one : got) EXPECT_EQ(one, wanted);
}

}  // namespace
}  // namespace coppice::text
