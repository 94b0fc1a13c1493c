// What a hostile or foreign tokenizer.json is answered: a code and the key that is at fault.
#include <functional>

#include <gtest/gtest.h>

#include "text/test_files.h"

namespace coppice::text {
namespace {

// The smallest file that has every stage.
Json small_config() {
  return Json::parse(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [
      {"id": 3, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
       "normalized": false, "special": true},
      {"id": 4, "content": "word", "single_word": true, "lstrip": false, "rstrip": false,
       "normalized": true, "special": false}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false},
      {"type": "Digits", "individual_digits": true},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}]},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
      "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})");
}

struct Fault {
  const char* name;
  std::function<void(Json&)> make;
  ErrorCode code;
  const char* names;  // must stand in the message
};

constexpr ErrorCode kBad = ErrorCode::kCorrupt;
constexpr ErrorCode kForeign = ErrorCode::kUnsupported;

const Fault kFaults[] = {
    // The file.
    {"NotAnObject", [](Json& j) { j = Json::array(); }, kBad, "must be an object"},
    {"Version", [](Json& j) { j["version"] = "2.0"; }, kForeign, "version"},
    {"VersionType", [](Json& j) { j["version"] = 1; }, kBad, "version must be a string"},
    // The model.
    {"NoModel", [](Json& j) { j.erase("model"); }, kBad, "\"model\""},
    {"ModelNull", [](Json& j) { j["model"] = nullptr; }, kBad, "model must be an object"},
    {"ModelType", [](Json& j) { j["model"]["type"] = "Unigram"; }, kForeign, "model.type"},
    {"ModelTypeType", [](Json& j) { j["model"]["type"] = 3; }, kBad, "model.type must be a string"},
    {"NoVocab", [](Json& j) { j["model"].erase("vocab"); }, kBad, "\"vocab\""},
    {"VocabArray", [](Json& j) { j["model"]["vocab"] = Json::array(); }, kBad, "model.vocab"},
    {"IdText", [](Json& j) { j["model"]["vocab"]["a"] = "0"; }, kBad, "model.vocab[\"a\"]"},
    {"IdNegative", [](Json& j) { j["model"]["vocab"]["a"] = -1; }, kBad, "model.vocab[\"a\"]"},
    {"IdFraction", [](Json& j) { j["model"]["vocab"]["a"] = 0.5; }, kBad, "model.vocab[\"a\"]"},
    {"IdHuge", [](Json& j) { j["model"]["vocab"]["a"] = 18446744073709551615u; }, kBad,
     "model.vocab[\"a\"]"},
    {"IdHole", [](Json& j) { j["model"]["vocab"]["a"] = 2147483647; }, kBad, "without holes"},
    {"IdTwice", [](Json& j) { j["model"]["vocab"]["b"] = 0; }, kBad, "as is \"a\""},
    {"NoMerges", [](Json& j) { j["model"].erase("merges"); }, kBad, "\"merges\""},
    {"MergesObject", [](Json& j) { j["model"]["merges"] = Json::object(); }, kBad, "model.merges"},
    {"MergeNumber", [](Json& j) { j["model"]["merges"] = {7}; }, kBad, "model.merges[0]"},
    {"MergeOfThree",
     [](Json& j) {
       j["model"]["merges"][0] = {"a", "b", "ab"};
     },
     kBad, "merges[0]"},
    {"MergeOfNumbers",
     [](Json& j) {
       j["model"]["merges"][0] = {"a", 1};
     },
     kBad, "merges[0]"},
    {"MergeNoSpace", [](Json& j) { j["model"]["merges"] = {"ab"}; }, kBad, "model.merges[0]"},
    {"MergeTwoSpaces", [](Json& j) { j["model"]["merges"] = {"a b a"}; }, kBad, "model.merges[0]"},
    {"MergeUnknownLeft",
     [](Json& j) {
       j["model"]["merges"][0] = {"x", "b"};
     },
     kBad, "merges[0] needs the token \"x\""},
    {"MergeUnknownResult",
     [](Json& j) {
       j["model"]["merges"] = {"a b", "b a"};
     },
     kBad, "merges[1] needs the token \"ba\""},
    {"Prefix", [](Json& j) { j["model"]["continuing_subword_prefix"] = "##"; }, kForeign,
     "continuing_subword_prefix"},
    {"Suffix", [](Json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, kForeign,
     "end_of_word_suffix"},
    {"Dropout", [](Json& j) { j["model"]["dropout"] = 0.1; }, kForeign, "model.dropout"},
    {"DropoutType", [](Json& j) { j["model"]["dropout"] = "0"; }, kBad, "model.dropout"},
    {"ByteFallback", [](Json& j) { j["model"]["byte_fallback"] = true; }, kForeign,
     "byte_fallback"},
    {"FuseType", [](Json& j) { j["model"]["fuse_unk"] = 1; }, kBad, "model.fuse_unk"},
    {"Unknown", [](Json& j) { j["model"]["unk_token"] = "<unk>"; }, kBad, "model.unk_token"},
    // Added tokens.
    {"AddedObject", [](Json& j) { j["added_tokens"] = Json::object(); }, kBad, "added_tokens"},
    {"AddedText", [](Json& j) { j["added_tokens"][0] = "<s>"; }, kBad, "added_tokens[0]"},
    {"AddedNoId", [](Json& j) { j["added_tokens"][0].erase("id"); }, kBad, "added_tokens[0]"},
    {"AddedNegative", [](Json& j) { j["added_tokens"][0]["id"] = -3; }, kBad, "added_tokens[0].id"},
    {"AddedHole", [](Json& j) { j["added_tokens"][1]["id"] = 2000000000; }, kBad,
     "added_tokens[1].id is 2000000000 but must be 4"},
    {"AddedTwice", [](Json& j) { j["added_tokens"][1]["content"] = "<s>"; }, kBad,
     "added_tokens[1] repeats"},
    {"AddedOtherId", [](Json& j) { j["added_tokens"][0]["content"] = "ab"; }, kBad,
     "its id in model.vocab"},
    {"AddedEmpty", [](Json& j) { j["added_tokens"][0]["content"] = ""; }, kBad, "added_tokens[0]"},
    {"AddedFlag", [](Json& j) { j["added_tokens"][0]["special"] = "yes"; }, kBad,
     "added_tokens[0].special"},
    {"AddedNoFlag", [](Json& j) { j["added_tokens"][0].erase("lstrip"); }, kBad, "\"lstrip\""},
    {"AddedAlikeOnceNormalized",
     [](Json& j) {
       j["added_tokens"][0].update({{"content", "\u00e9"}, {"normalized", true}});
       j["added_tokens"][1]["content"] = "e\u0301";
     },
     kBad, "added_tokens[1] is looked for as"},
    // Normalizer.
    {"NormalizerType",
     [](Json& j) {
       j["normalizer"] = {{"type", "Lowercase"}};
     },
     kForeign, "normalizer has the type \"Lowercase\""},
    {"NormalizerText", [](Json& j) { j["normalizer"] = "NFC"; }, kBad, "normalizer"},
    {"NormalizerNoList", [](Json& j) { j["normalizer"].erase("normalizers"); }, kBad,
     "\"normalizers\""},
    {"NormalizerInside", [](Json& j) { j["normalizer"]["normalizers"][0]["type"] = "Replace"; },
     kForeign, "normalizer.normalizers[0]"},
    // Pre-tokenizer.
    {"PreType",
     [](Json& j) {
       j["pre_tokenizer"] = {{"type", "Metaspace"}};
     },
     kForeign, "pre_tokenizer has the type \"Metaspace\""},
    {"PreNoType", [](Json& j) { j["pre_tokenizer"].erase("type"); }, kBad, "\"type\""},
    {"PreList", [](Json& j) { j["pre_tokenizer"]["pretokenizers"] = 1; }, kBad,
     "pre_tokenizer.pretokenizers"},
    {"SplitBroken",
     [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a"; }, kBad,
     "pretokenizers[0].pattern.Regex"},
    {"SplitForeign",
     [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "[a&&b]"; },
     kForeign, "pretokenizers[0].pattern.Regex"},
    {"SplitNoPattern", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0].erase("pattern"); },
     kBad, "\"pattern\""},
    {"SplitPatternText", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = "a"; },
     kBad, ".pattern"},
    {"SplitPatternKind",
     [](Json& j) {
       j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Glob", "a"}};
     },
     kBad, ".pattern must hold"},
    {"SplitBehavior", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Lost"; },
     kBad, ".behavior is \"Lost\""},
    {"SplitInvert", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = 0; }, kBad,
     ".invert"},
    {"SplitHuge",
     [](Json& j) {
       j["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = std::string(70000, 'a');
     },
     kForeign, "65536"},
    {"DigitsFlag",
     [](Json& j) { j["pre_tokenizer"]["pretokenizers"][1].erase("individual_digits"); }, kBad,
     "individual_digits"},
    {"ByteLevelFlag", [](Json& j) { j["pre_tokenizer"]["pretokenizers"][2]["use_regex"] = "no"; },
     kBad, "pretokenizers[2].use_regex"},
    {"ByteLevelTwice",
     [](Json& j) {
       auto& list = j["pre_tokenizer"]["pretokenizers"];
       list.push_back(list[2]);
     },
     kForeign, "pretokenizers[3] is a second ByteLevel"},
    // Post-processor.
    {"PostType", [](Json& j) { j["post_processor"]["type"] = "BertProcessing"; }, kForeign,
     "post_processor has the type"},
    {"PostNoSingle", [](Json& j) { j["post_processor"].erase("single"); }, kBad, "\"single\""},
    {"PostNoText", [](Json& j) { j["post_processor"]["single"].erase(1); }, kForeign,
     "post_processor.single drops the text"},
    {"PostTextTwice",
     [](Json& j) { j["post_processor"]["single"][0] = j["post_processor"]["single"][1]; }, kForeign,
     "post_processor.single[1]"},
    {"PostOtherText", [](Json& j) { j["post_processor"]["single"][1]["Sequence"]["id"] = "B"; },
     kForeign, "post_processor.single[1]"},
    {"PostUnknownToken", [](Json& j) { j["post_processor"]["special_tokens"] = Json::object(); },
     kBad, "post_processor.special_tokens lacks the key \"<s>\""},
    {"PostIdTooBig", [](Json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {5}; },
     kBad, "ids[0]"},
    {"PostIdNegative", [](Json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {-1}; },
     kBad, "ids[0]"},
    {"PostTooMany",
     [](Json& j) {
       const Json one = j["post_processor"]["single"][0];
       for (int i = 0; i < 2000; ++i) j["post_processor"]["single"].push_back(one);
     },
     kForeign, "1024"},
    {"PostPiece",
     [](Json& j) {
       j["post_processor"]["single"][0] = {{"Token", 1}};
     },
     kBad, "post_processor.single[0]"},
    {"PostTwoTemplates",
     [](Json& j) {
       const Json one = j["post_processor"];
       j["post_processor"] = {{"type", "Sequence"}, {"processors", {one, one}}};
     },
     kForeign, "post_processor.processors[1]"},
    // Decoder.
    {"DecoderNull", [](Json& j) { j["decoder"] = nullptr; }, kForeign, "decoder"},
    {"DecoderType",
     [](Json& j) {
       j["decoder"] = {{"type", "WordPiece"}};
     },
     kForeign, "decoder"},
    {"DecoderEmpty",
     [](Json& j) {
       j["decoder"] = {{"type", "Sequence"}, {"decoders", Json::array()}};
     },
     kForeign, "decoder.decoders"},
    {"DecoderAfter",
     [](Json& j) {
       const Json one = j["decoder"];
       j["decoder"] = {{"type", "Sequence"}, {"decoders", {one, one}}};
     },
     kForeign, "decoder.decoders[1]"},
};

class Faulty : public ::testing::TestWithParam<Fault> {};
INSTANTIATE_TEST_SUITE_P(Load, Faulty, ::testing::ValuesIn(kFaults),
                         [](const auto& one) { return std::string(one.param.name); });

TEST_P(Faulty, IsRefusedByName) {
  Json config = small_config();
  GetParam().make(config);
  const auto loaded = Tokenizer::load(config.dump(), "f/tokenizer.json");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, GetParam().code) << loaded.error().message;
  EXPECT_NE(loaded.error().message.find(GetParam().names), std::string::npos)
      << loaded.error().message;
  EXPECT_EQ(loaded.error().message.find("f/tokenizer.json"), 0u) << loaded.error().message;
}

TEST(Load, TheSmallFileItselfLoads) {
  const auto tokenizer = testing::load_or_fail(small_config().dump(), "small");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->encode("ab<s>word", true), (std::vector<TokenId>{3, 2, 3, 4}));
}

TEST(Load, ForgivesWhatOldFilesHave) {
  Json config = small_config();
  config["model"].erase("type");
  config["model"]["continuing_subword_prefix"] = "";
  config["model"]["merges"] = {"#version: 0.2", "a b"};
  config["truncation"] = {{"max_length", 1}};
  config["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  config.erase("post_processor");
  const auto tokenizer = testing::load_or_fail(config.dump(), "old");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->encode("abab", true), (std::vector<TokenId>{2, 2}));
}

TEST(Load, EveryPrefixOfAFileIsRefused) {
  const std::string whole = small_config().dump();
  for (size_t length = 0; length < whole.size(); ++length) {
    const auto loaded = Tokenizer::load(whole.substr(0, length), "cut");
    ASSERT_FALSE(loaded) << length;
    EXPECT_EQ(loaded.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(loaded.error().message.find("byte"), std::string::npos) << loaded.error().message;
  }
}

TEST(Load, DepthIsBounded) {
  const auto deep = [](size_t levels) {
    std::string inside;
    for (size_t i = 0; i < levels; ++i) inside += R"({"type":"Sequence","normalizers":[)";
    inside += R"({"type":"NFC"})";
    for (size_t i = 0; i < levels; ++i) inside += "]}";
    Json config = small_config();
    std::string text = config.dump();
    const std::string was = config["normalizer"].dump();
    return text.replace(text.find(was), was.size(), inside);
  };
  EXPECT_TRUE(Tokenizer::load(deep(20), "deep"));
  for (const size_t levels : {40, 100000}) {
    const auto loaded = Tokenizer::load(deep(levels), "deep");
    ASSERT_FALSE(loaded);
    EXPECT_EQ(loaded.error().code, ErrorCode::kCorrupt);
    EXPECT_NE(loaded.error().message.find("nested"), std::string::npos) << loaded.error().message;
  }
}

TEST(Load, AKeyTwiceIsRefused) {
  std::string text = small_config().dump();
  const std::string was = R"("a":0)";
  text.replace(text.find(was), was.size(), R"("a":0,"a":0)");
  const auto loaded = Tokenizer::load(text, "twice");
  ASSERT_FALSE(loaded);
  EXPECT_NE(loaded.error().message.find("\"a\" twice"), std::string::npos)
      << loaded.error().message;
}

TEST(Load, MessagesStayShortAndPrintable) {
  Json config = small_config();
  config["model"]["merges"][0] = {std::string(100000, '\x01'), "b"};
  const auto loaded = Tokenizer::load(config.dump(), "long");
  ASSERT_FALSE(loaded);
  EXPECT_LT(loaded.error().message.size(), 600u);
  for (const char c : loaded.error().message) EXPECT_GE(c, ' ');
}

}  // namespace
}  // namespace coppice::text
