#include "train/bpe.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "eval/storefront.h"
#include "train/base_trainer.h"

namespace coppice::train {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(COPPICE_SOURCE_DIR) / "models/storefront";

std::filesystem::path bpe_scratch(const std::string& name) {
  const auto dir = std::filesystem::temp_directory_path() / ("coppice_bpe_test_" + name);
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  return dir;
}

// tests/data/train/bpe.jsonl: what the `tokenizers` library makes of the same tokenizer.json.
TEST(Bpe, EncodesAsTheLibraryDoes) {
  const auto bpe = Bpe::load(kModel);
  ASSERT_TRUE(bpe) << bpe.error().message;
  std::ifstream file(COPPICE_TEST_DATA "/train/bpe.jsonl");
  int lines = 0;
  for (std::string line; std::getline(file, line); ++lines) {
    const auto json = nlohmann::json::parse(line);
    const auto ids = bpe->encode(json[0].get<std::string>());
    ASSERT_TRUE(ids) << ids.error().message;
    EXPECT_EQ(*ids, json[1].get<std::vector<int32_t>>()) << json[0];
    EXPECT_EQ(bpe->decode(*ids), json[0].get<std::string>());
  }
  EXPECT_GT(lines, 200);
}

TEST(Bpe, TrainingMakesTheShippedFilesAgain) {
  const auto bpe = train_tokenizer(1024);
  ASSERT_TRUE(bpe) << bpe.error().message;
  const auto dir = bpe_scratch("again");
  ASSERT_TRUE(bpe->save(dir));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    const auto made = read_file((dir / name).string()),
               shipped = read_file((kModel / name).string());
    ASSERT_TRUE(made && shipped);
    EXPECT_TRUE(*made == *shipped) << name;
  }
}

TEST(Bpe, EveryWordOfTheStorefrontIsOneToken) {
  const auto bpe = Bpe::load(kModel);
  ASSERT_TRUE(bpe) << bpe.error().message;
  EXPECT_EQ(bpe->vocab_size(), 1024);
  for (const std::string& word : storefront::words()) {
    EXPECT_EQ(bpe->encode(" " + word)->size(), 1u) << word;
  }
  const auto shop = storefront::make_shop(12, 100, storefront::Split::kAny);
  EXPECT_EQ(bpe->encode(shop.prompt())->size(), 100u * storefront::kTokensPerFact + 1);
}

TEST(Bpe, PiecesOfAPromptEncodeAlone) {
  const auto bpe = Bpe::load(kModel);
  const auto shop = storefront::make_shop(13, 16, storefront::Split::kAny);
  for (const auto& question : shop.questions()) {
    auto parts = *bpe->encode(shop.prompt());
    for (const auto& text : {question.text, question.answer}) {
      const auto ids = *bpe->encode(text);
      parts.insert(parts.end(), ids.begin(), ids.end());
    }
    EXPECT_EQ(parts, *bpe->encode(shop.prompt() + question.text + question.answer));
  }
}

TEST(Bpe, RefusesWhatItCannotRead) {
  const auto bpe = Bpe::load(kModel);
  const auto ids = bpe->encode("caf\xC3\xA9");
  ASSERT_FALSE(ids);
  EXPECT_EQ(ids.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(ids.error().message.find("byte 3"), std::string::npos);

  const auto dir = bpe_scratch("bad");
  EXPECT_EQ(Bpe::load(dir).error().code, ErrorCode::kNotFound);
  const auto error_of = [&](const std::string& text) {
    std::ofstream(dir / "tokenizer.json") << text;
    const auto loaded = Bpe::load(dir);
    EXPECT_FALSE(loaded) << text;
    return loaded ? "" : loaded.error().message;
  };
  EXPECT_NE(error_of("{").find("no model"), std::string::npos);
  EXPECT_NE(error_of("[]").find("no model"), std::string::npos);
  EXPECT_NE(error_of(R"({"model":{"vocab":{},"merges":["q zz"]}})").find("merge 0"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"model":{"vocab":{},"merges":[7]}})").find("merge 0"), std::string::npos);
  EXPECT_NE(error_of(R"({"model":{"vocab":{"qz":7},"merges":["q z"]}})").find("vocab"),
            std::string::npos);
  EXPECT_FALSE(Bpe::train("text", 100));
}

}  // namespace
}  // namespace coppice::train
