// Beside the engine's tokenizer, where that is built.
#include <gtest/gtest.h>

#include "base/file.h"
#include "eval/families.h"
#include "text/tokenizer.h"

namespace coppice::families {
namespace {

// With the bundled tokenizer a word is a token, and a question's tokens do not depend on what
// stands before it.
TEST(Families, EveryWordAndMarkIsOneTokenOfTheBundledTokenizer) {
  const std::string file = COPPICE_SOURCE_DIR "/models/storefront/tokenizer.json";
  const auto json = read_file(file);
  ASSERT_TRUE(json) << json.error().message;
  const auto tokenizer = text::Tokenizer::load(*json, file);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const auto encode = [&](const std::string& text) { return (*tokenizer)->encode(text, false); };
  for (const FamilyInfo& one : all_families()) {
    for (const Haystack level : {Haystack::kH0, Haystack::kH1, Haystack::kH2, Haystack::kH3}) {
      if (!has_level(one, level)) continue;
      for (uint64_t seed = 0; seed < 8; ++seed) {
        TaskOptions options;
        options.tokens = 600;
        options.haystack = level;
        const TaskSample task = make_task(one.family, seed, options);
        const auto context = encode(task.context);
        EXPECT_EQ(static_cast<int>(context.size()), count_tokens(task.context)) << task.context;
        for (const Ask& ask : task.asks) {
          const auto question = encode(ask.question), answer = encode(ask.answer);
          EXPECT_EQ(static_cast<int>(question.size()), count_tokens(ask.question)) << ask.question;
          EXPECT_EQ(static_cast<int>(answer.size()), count_tokens(ask.answer)) << ask.answer;
          auto whole = context;
          whole.insert(whole.end(), question.begin(), question.end());
          whole.insert(whole.end(), answer.begin(), answer.end());
          EXPECT_EQ(encode(task.context + ask.question + ask.answer), whole);
        }
      }
    }
  }
}

}  // namespace
}  // namespace coppice::families
