// What a hostile or foreign tokenizer.json is answered: a code and the key that is at fault.
#include <string>

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
      {"id": 4, "content": "w\u00f6rd", "single_word": true, "lstrip": false, "rstrip": false,
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

// One member of the small file, by JSON pointer, replaced or (value nullptr) taken away.
struct Fault {
  const char* name;
  const char* member;
  const char* value;
  ErrorCode code;
  const char* names;  // must stand in the message
};

constexpr ErrorCode kBad = ErrorCode::kCorrupt;
constexpr ErrorCode kForeign = ErrorCode::kUnsupported;

constexpr Fault kFaults[] = {
    // The file.
    {"NotAnObject", "", "[]", kBad, "must be an object"},
    {"Version", "/version", R"("2.0")", kForeign, "version"},
    {"VersionType", "/version", "1", kBad, "version must be a string"},
    // The model.
    {"NoModel", "/model", nullptr, kBad, R"("model")"},
    {"ModelNull", "/model", "null", kBad, "model must be an object"},
    {"ModelType", "/model/type", R"("Unigram")", kForeign, "model.type"},
    {"ModelTypeType", "/model/type", "3", kBad, "model.type must be a string"},
    {"NoVocab", "/model/vocab", nullptr, kBad, R"("vocab")"},
    {"VocabArray", "/model/vocab", "[]", kBad, "model.vocab"},
    {"IdText", "/model/vocab/a", R"("0")", kBad, R"(model.vocab["a"])"},
    {"IdNegative", "/model/vocab/a", "-1", kBad, R"(model.vocab["a"])"},
    {"IdFraction", "/model/vocab/a", "0.5", kBad, R"(model.vocab["a"])"},
    {"IdHuge", "/model/vocab/a", "18446744073709551615", kBad, R"(model.vocab["a"])"},
    {"IdHole", "/model/vocab/a", "2147483647", kBad, "without holes"},
    {"IdTwice", "/model/vocab/b", "0", kBad, R"(as is "a")"},
    {"NoMerges", "/model/merges", nullptr, kBad, R"("merges")"},
    {"MergesObject", "/model/merges", "{}", kBad, "model.merges"},
    {"MergeNumber", "/model/merges", "[7]", kBad, "model.merges[0]"},
    {"MergeOfThree", "/model/merges", R"([["a", "b", "ab"]])", kBad, "model.merges[0]"},
    {"MergeOfNumbers", "/model/merges", R"([["a", 1]])", kBad, "model.merges[0]"},
    {"MergeNoSpace", "/model/merges", R"(["ab"])", kBad, "model.merges[0]"},
    {"MergeTwoSpaces", "/model/merges", R"(["a b a"])", kBad, "model.merges[0]"},
    {"MergeUnknownLeft", "/model/merges", R"([["x", "b"]])", kBad,
     R"(merges[0] needs the token "x")"},
    {"MergeUnknownResult", "/model/merges", R"(["a b", "b a"])", kBad,
     R"(merges[1] needs the token "ba")"},
    {"Prefix", "/model/continuing_subword_prefix", R"("##")", kForeign,
     "continuing_subword_prefix"},
    {"Suffix", "/model/end_of_word_suffix", R"("</w>")", kForeign, "end_of_word_suffix"},
    {"Dropout", "/model/dropout", "0.1", kForeign, "model.dropout"},
    {"DropoutType", "/model/dropout", R"("0")", kBad, "model.dropout"},
    {"ByteFallback", "/model/byte_fallback", "true", kForeign, "byte_fallback"},
    {"FuseType", "/model/fuse_unk", "1", kBad, "model.fuse_unk"},
    {"Unknown", "/model/unk_token", R"("<unk>")", kBad, "model.unk_token"},
    // Added tokens.
    {"AddedObject", "/added_tokens", "{}", kBad, "added_tokens"},
    {"AddedText", "/added_tokens/0", R"("<s>")", kBad, "added_tokens[0]"},
    {"AddedNoId", "/added_tokens/0/id", nullptr, kBad, "added_tokens[0]"},
    {"AddedNegative", "/added_tokens/0/id", "-3", kBad, "added_tokens[0].id"},
    {"AddedHole", "/added_tokens/1/id", "2000000000", kBad,
     "added_tokens[1].id is 2000000000 but must be 4"},
    {"AddedTwice", "/added_tokens/1/content", R"("<s>")", kBad, "added_tokens[1] repeats"},
    {"AddedOtherId", "/added_tokens/0/content", R"("ab")", kBad, "its id in model.vocab"},
    {"AddedEmpty", "/added_tokens/0/content", R"("")", kBad, "added_tokens[0]"},
    {"AddedFlag", "/added_tokens/0/special", R"("yes")", kBad, "added_tokens[0].special"},
    {"AddedNoFlag", "/added_tokens/0/lstrip", nullptr, kBad, R"("lstrip")"},
    {"AddedAlikeOnceNormalized", "/added_tokens/2",
     R"({"id": 5, "content": "wo\u0308rd", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false})",
     kBad, "added_tokens[2] is looked for as"},
    // Normalizer.
    {"NormalizerType", "/normalizer/type", R"("Lowercase")", kForeign,
     R"(normalizer has the type "Lowercase")"},
    {"NormalizerText", "/normalizer", R"("NFC")", kBad, "normalizer"},
    {"NormalizerNoList", "/normalizer/normalizers", nullptr, kBad, R"("normalizers")"},
    {"NormalizerInside", "/normalizer/normalizers/0/type", R"("Replace")", kForeign,
     "normalizer.normalizers[0]"},
    // Pre-tokenizer.
    {"PreType", "/pre_tokenizer/type", R"("Metaspace")", kForeign,
     R"(pre_tokenizer has the type "Metaspace")"},
    {"PreNoType", "/pre_tokenizer/type", nullptr, kBad, R"("type")"},
    {"PreList", "/pre_tokenizer/pretokenizers", "1", kBad, "pre_tokenizer.pretokenizers"},
    {"SplitBroken", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("(a")", kBad,
     "pretokenizers[0].pattern.Regex"},
    {"SplitForeign", "/pre_tokenizer/pretokenizers/0/pattern/Regex", R"("[a&&b]")", kForeign,
     "pretokenizers[0].pattern.Regex"},
    {"SplitNoPattern", "/pre_tokenizer/pretokenizers/0/pattern", nullptr, kBad, R"("pattern")"},
    {"SplitPatternText", "/pre_tokenizer/pretokenizers/0/pattern", R"("a")", kBad,
     ".pattern must be an object"},
    {"SplitPatternKind", "/pre_tokenizer/pretokenizers/0/pattern", R"({"Glob": "a"})", kBad,
     ".pattern must hold"},
    {"SplitBehavior", "/pre_tokenizer/pretokenizers/0/behavior", R"("Lost")", kBad,
     R"(.behavior is "Lost")"},
    {"SplitInvert", "/pre_tokenizer/pretokenizers/0/invert", "0", kBad, ".invert"},
    {"DigitsFlag", "/pre_tokenizer/pretokenizers/1/individual_digits", nullptr, kBad,
     "individual_digits"},
    {"ByteLevelFlag", "/pre_tokenizer/pretokenizers/2/use_regex", R"("no")", kBad,
     "pretokenizers[2].use_regex"},
    {"ByteLevelTwice", "/pre_tokenizer/pretokenizers/1",
     R"({"type": "ByteLevel", "add_prefix_space": false})", kForeign,
     "pretokenizers[2] is a second ByteLevel"},
    // Post-processor.
    {"PostType", "/post_processor/type", R"("BertProcessing")", kForeign,
     "post_processor has the type"},
    {"PostNoSingle", "/post_processor/single", nullptr, kBad, R"("single")"},
    {"PostNoText", "/post_processor/single/1", nullptr, kForeign,
     "post_processor.single drops the text"},
    {"PostTextTwice", "/post_processor/single/0", R"({"Sequence": {"id": "A"}})", kForeign,
     "post_processor.single[1]"},
    {"PostOtherText", "/post_processor/single/1/Sequence/id", R"("B")", kForeign,
     "post_processor.single[1]"},
    {"PostUnknownToken", "/post_processor/special_tokens", "{}", kBad,
     R"(post_processor.special_tokens lacks the key "<s>")"},
    {"PostIdTooBig", "/post_processor/special_tokens/<s>/ids", "[5]", kBad, "ids[0]"},
    {"PostIdNegative", "/post_processor/special_tokens/<s>/ids", "[-1]", kBad, "ids[0]"},
    {"PostPiece", "/post_processor/single/0", R"({"Token": 1})", kBad, "post_processor.single[0]"},
    // Decoder.
    {"DecoderNull", "/decoder", "null", kForeign, "decoder"},
    {"DecoderType", "/decoder/type", R"("WordPiece")", kForeign, "decoder"},
    {"DecoderEmpty", "/decoder", R"({"type": "Sequence", "decoders": []})", kForeign,
     "decoder.decoders"},
    {"DecoderAfter", "/decoder",
     R"({"type": "Sequence", "decoders": [{"type": "ByteLevel"}, {"type": "ByteLevel"}]})",
     kForeign, "decoder.decoders[1]"},
};

Json with_fault(const char* member, const char* value) {
  Json config = small_config();
  if (value == nullptr) {
    const Json removal = {{"op", "remove"}, {"path", member}};
    return config.patch(Json::array({removal}));
  }
  config[Json::json_pointer(member)] = Json::parse(value);
  return config;
}

void expect_refused(const Json& config, ErrorCode code, const std::string& names) {
  const auto loaded = Tokenizer::load(config.dump(), "f/tokenizer.json");
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, code) << loaded.error().message;
  EXPECT_NE(loaded.error().message.find(names), std::string::npos) << loaded.error().message;
  EXPECT_EQ(loaded.error().message.find("f/tokenizer.json: "), 0u) << loaded.error().message;
}

class Faulty : public ::testing::TestWithParam<Fault> {};
INSTANTIATE_TEST_SUITE_P(Load, Faulty, ::testing::ValuesIn(kFaults),
                         [](const auto& one) { return std::string(one.param.name); });

TEST_P(Faulty, IsRefusedByName) {
  const Fault& fault = GetParam();
  expect_refused(with_fault(fault.member, fault.value), fault.code, fault.names);
}

TEST(Load, TemplatesAreBounded) {
  Json config = small_config();
  const Json once = config["post_processor"];
  config["post_processor"] = {{"type", "Sequence"}, {"processors", {once, once}}};
  expect_refused(config, kForeign, "post_processor.processors[1]");
  config["post_processor"] = once;
  for (int i = 0; i < 2000; ++i) config["post_processor"]["single"].push_back(once["single"][0]);
  expect_refused(config, kForeign, "1024");
}

TEST(Load, PatternsAreBounded) {
  Json config = small_config();
  config["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = std::string(70000, 'a');
  expect_refused(config, kForeign, "65536");
}

TEST(Load, TheSmallFileItselfLoads) {
  const auto tokenizer = testing::load_or_fail(small_config().dump(), "small");
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->encode("ab<s>w\u00f6rd", true), (std::vector<TokenId>{3, 2, 3, 4}));
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
