#include "model/gguf_tokenizer.h"

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/gguf_builder.h"

namespace coppice::model {
namespace {

using nlohmann::json;

const std::string kData = COPPICE_TEST_DATA;

json golden(const std::string& path) {
  const auto checkpoint = Checkpoint::open(kData + path);
  EXPECT_TRUE(checkpoint);
  const auto text = (*checkpoint)->tokenizer_json();
  EXPECT_TRUE(text) << text.error().message;
  return json::parse(*text);
}

// Merges are written as pairs or, in older files, as strings.
json pairs(const json& merges) {
  json out = json::array();
  for (const json& merge : merges) {
    if (merge.is_array()) {
      out.push_back(merge);
      continue;
    }
    const std::string text = merge;
    const size_t space = text.find(' ');
    out.push_back({text.substr(0, space), text.substr(space + 1)});
  }
  return out;
}

TEST(GgufTokenizer, EqualsTheTokenizerItWasConvertedFrom) {
  const std::pair<const char*, const char*> files[] = {{"/gguf/llama-f32.gguf", "/models/llama"},
                                                       {"/gguf/llama3-bf16.gguf", "/models/llama3"},
                                                       {"/gguf/qwen2-f16.gguf", "/models/qwen2"},
                                                       {"/gguf/qwen3-q8_0.gguf", "/models/qwen3"}};
  for (const auto& [gguf, directory] : files) {
    const json got = golden(gguf);
    const json want = golden(directory);
    EXPECT_EQ(got["model"]["vocab"], want["model"]["vocab"]) << gguf;
    EXPECT_EQ(pairs(got["model"]["merges"]), pairs(want["model"]["merges"])) << gguf;
    EXPECT_EQ(got["added_tokens"], want["added_tokens"]) << gguf;
    EXPECT_EQ(got["normalizer"], want["normalizer"]) << gguf;
  }
  EXPECT_EQ(golden("/gguf/llama3-bf16.gguf")["pre_tokenizer"]["pretokenizers"][0]["pattern"],
            golden("/models/llama3")["pre_tokenizer"]["pretokenizers"][0]["pattern"]);
  EXPECT_EQ(golden("/gguf/qwen2-f16.gguf")["pre_tokenizer"]["pretokenizers"][0]["pattern"],
            golden("/models/qwen2")["pre_tokenizer"]["pretokenizers"][0]["pattern"]);
}

GgufBuilder three(const char* pre = "gpt-2") {
  GgufBuilder b;
  b.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
  b.texts("tokenizer.ggml.tokens", {"a", "b", "ab", "<s>", "<tool>"});
  b.texts("tokenizer.ggml.merges", {"a b"});
  b.i32s("tokenizer.ggml.token_type", {1, 1, 1, 3, 4});
  return b;
}

Expected<std::string> made(const GgufBuilder& b, int32_t vocab_size = 5) {
  const std::string bytes = b.build();
  const auto file = GgufFile::read(as_bytes(bytes), "f.gguf");
  EXPECT_TRUE(file) << file.error().message;
  return gguf_tokenizer_json(*file, vocab_size);
}

json made_json(const GgufBuilder& b) {
  const auto text = made(b);
  EXPECT_TRUE(text) << text.error().message;
  return text ? json::parse(*text) : json();
}

TEST(GgufTokenizer, SpecialTokensAndMerges) {
  const json made = made_json(three());
  EXPECT_EQ(made["model"]["vocab"]["ab"], 2);
  EXPECT_EQ(made["model"]["merges"], json::parse(R"([["a","b"]])"));
  ASSERT_EQ(made["added_tokens"].size(), 2u);
  EXPECT_EQ(made["added_tokens"][0]["content"], "<s>");
  EXPECT_EQ(made["added_tokens"][0]["special"], true);
  EXPECT_EQ(made["added_tokens"][1]["id"], 4);
  EXPECT_EQ(made["added_tokens"][1]["special"], false);
  EXPECT_TRUE(made["post_processor"].is_null());
}

TEST(GgufTokenizer, BosAndEosAsTheFileAsks) {
  GgufBuilder b = three();
  b.u32("tokenizer.ggml.bos_token_id", 3).u32("tokenizer.ggml.eos_token_id", 4);
  EXPECT_TRUE(made_json(b)["post_processor"].is_null());
  b.flag("tokenizer.ggml.add_bos_token", true).flag("tokenizer.ggml.add_eos_token", true);
  const json frame = made_json(b)["post_processor"];
  ASSERT_EQ(frame["single"].size(), 3u);
  EXPECT_EQ(frame["single"][0]["SpecialToken"]["id"], "<s>");
  EXPECT_EQ(frame["single"][1]["Sequence"]["id"], "A");
  EXPECT_EQ(frame["single"][2]["SpecialToken"]["id"], "<tool>");
  EXPECT_EQ(frame["special_tokens"]["<s>"]["ids"], json::parse("[3]"));

  GgufBuilder llama3 = three("llama-bpe");
  EXPECT_TRUE(made_json(llama3)["post_processor"].is_null());
  llama3.u32("tokenizer.ggml.bos_token_id", 3);
  EXPECT_EQ(made_json(llama3)["post_processor"]["single"].size(), 2u);
  EXPECT_TRUE(made_json(llama3)["model"]["ignore_merges"]);
  llama3.flag("tokenizer.ggml.add_bos_token", false);
  EXPECT_TRUE(made_json(llama3)["post_processor"].is_null());
}

TEST(GgufTokenizer, PreTokenizersByName) {
  EXPECT_EQ(made_json(three("qwen2"))["normalizer"]["type"], "NFC");
  EXPECT_EQ(made_json(three("smollm"))["pre_tokenizer"]["pretokenizers"].size(), 3u);
  EXPECT_TRUE(contains(message_of(made(three("tekken"))), "\"tekken\"; this build reads default"));
  GgufBuilder sentencepiece;
  sentencepiece.text("tokenizer.ggml.model", "llama");
  EXPECT_TRUE(contains(message_of(made(sentencepiece)), "this build reads \"gpt2\""));
  EXPECT_TRUE(contains(message_of(made(GgufBuilder())), "has no tokenizer"));
}

TEST(GgufTokenizer, BrokenListsNameTheElement) {
  const auto tokens = [](std::vector<std::string> list) {
    GgufBuilder b;
    b.text("tokenizer.ggml.model", "gpt2").texts("tokenizer.ggml.tokens", list);
    return b;
  };
  EXPECT_TRUE(contains(message_of(made(tokens({"a", "b", "a"}))),
                       "tokenizer.ggml.tokens [2] is \"a\", and so is element 0"));
  EXPECT_TRUE(contains(message_of(made(tokens({}))), "has 0 elements"));
  EXPECT_TRUE(contains(message_of(made(tokens({"a", "b"}), 1)), "the embedding has 1 rows"));
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80",
                          "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5", "\xe2\x28\xa1"}) {
    EXPECT_TRUE(contains(message_of(made(tokens({"a", bad}))), "[1] is not UTF-8"));
  }
  EXPECT_TRUE(made(tokens({"é", "東", "😀", "\xf4\x8f\xbf\xbf"})));
  for (const char* bad : {"ab", " b", "a ", "a b c", ""}) {
    EXPECT_TRUE(contains(
        message_of(made(tokens({"a", "b", "ab"}).texts("tokenizer.ggml.merges", {"a b", bad}))),
        "tokenizer.ggml.merges [1] is"));
  }
  EXPECT_TRUE(contains(message_of(made(tokens({"a"}).i32s("tokenizer.ggml.token_type", {1, 1}))),
                       "token_type has 2 elements"));
  EXPECT_TRUE(contains(message_of(made(tokens({""}).i32s("tokenizer.ggml.token_type", {3}))),
                       "empty special token"));
  EXPECT_TRUE(contains(message_of(made(tokens({"a"})
                                           .u32("tokenizer.ggml.bos_token_id", 1)
                                           .flag("tokenizer.ggml.add_bos_token", true))),
                       "bos_token_id"));
}

}  // namespace
}  // namespace coppice::model
