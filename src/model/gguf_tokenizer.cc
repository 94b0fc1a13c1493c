#include "model/gguf_tokenizer.h"

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/strict_json.h"
#include "model/tokenizer_document.h"

namespace coppice::model {
namespace {

using nlohmann::json;

constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";

// Values of tokenizer.ggml.token_type that matter here.
constexpr int64_t kControl = 3;
constexpr int64_t kUserDefined = 4;

constexpr const char* kGpt2Split =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlama3Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2Split =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kDigit = R"(\p{N})";

// What llama.cpp's name of a pre-tokenizer stands for.
struct PreTokenizer {
  std::string_view name;
  std::vector<const char*> splits;  // applied one after the other
  bool composes;                    // text is normalised to NFC first
  bool whole_words;                 // a word that is a token is not merged ("ignore_merges")
  bool adds_bos;                    // unless tokenizer.ggml.add_bos_token says otherwise
};

const std::array<PreTokenizer, 9>& pre_tokenizers() {
  static const std::array<PreTokenizer, 9> rows{{
      {"default", {kGpt2Split}, false, false, false},
      {"gpt-2", {kGpt2Split}, false, false, false},
      {"llama-bpe", {kLlama3Split}, false, true, true},
      {"llama3", {kLlama3Split}, false, true, true},
      {"llama-v3", {kLlama3Split}, false, true, true},
      {"qwen2", {kQwen2Split}, true, false, false},
      {"deepseek-r1-qwen", {kQwen2Split}, true, false, false},
      {"smollm", {kDigit, kGpt2Split}, false, false, false},
      {"falcon3", {kLlama3Split}, false, true, true},
  }};
  return rows;
}

Expected<const PreTokenizer*> find_pre_tokenizer(const GgufFile& file) {
  TRY(const std::string_view model, file.text("tokenizer.ggml.model", ""));
  if (model.empty()) {
    return fail(ErrorCode::kNotFound,
                file.where() + ": has no tokenizer (tokenizer.ggml.model is missing)");
  }
  if (model != "gpt2") {
    return fail(ErrorCode::kUnsupported, file.where() + ": tokenizer.ggml.model is " +
                                             quote_name(model) +
                                             "; this build reads \"gpt2\" (byte-level BPE)");
  }
  TRY(const std::string_view name, file.text("tokenizer.ggml.pre", "default"));
  std::string known;
  for (const PreTokenizer& row : pre_tokenizers()) {
    if (row.name == name) return &row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  return fail(ErrorCode::kUnsupported, file.where() + ": tokenizer.ggml.pre is " +
                                           quote_name(name) + "; this build reads " + known);
}

// Bytes of the character at the front of `text`, 0 if it is not UTF-8 (RFC 3629).
size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xc2 && lead <= 0xdf   ? 2
                        : lead >= 0xe0 && lead <= 0xef ? 3
                        : lead >= 0xf0 && lead <= 0xf4 ? 4
                                                       : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0u) != 0x80u) return 0;
  }
  const bool too_long = (lead == 0xe0 && byte(1) < 0xa0) || (lead == 0xf0 && byte(1) < 0x90);
  const bool no_scalar = (lead == 0xed && byte(1) > 0x9f) || (lead == 0xf4 && byte(1) > 0x8f);
  return too_long || no_scalar ? 0 : length;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

tl::unexpected<Error> wrong_element(const GgufFile& file, std::string_view key, size_t index,
                                    const std::string& what) {
  return fail(ErrorCode::kCorrupt,
              file.where() + ": " + std::string(key) + " [" + std::to_string(index) + "] " + what);
}

Expected<std::vector<std::string_view>> read_texts(const GgufFile& file, std::string_view key) {
  TRY(std::vector<std::string_view> texts, file.texts(key));
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!is_utf8(texts[i])) return wrong_element(file, key, i, "is not UTF-8");
  }
  return texts;
}

Expected<std::vector<std::string_view>> read_tokens(const GgufFile& file, int32_t vocab_size) {
  TRY(std::vector<std::string_view> tokens, read_texts(file, kTokens));
  if (tokens.empty() || tokens.size() > static_cast<size_t>(vocab_size)) {
    return fail(ErrorCode::kCorrupt, file.where() + ": " + std::string(kTokens) + " has " +
                                         std::to_string(tokens.size()) +
                                         " elements; the embedding has " +
                                         std::to_string(vocab_size) + " rows");
  }
  return tokens;
}

Expected<json> vocabulary(const GgufFile& file, const std::vector<std::string_view>& tokens) {
  json::object_t vocab;
  for (size_t id = 0; id < tokens.size(); ++id) {
    const auto [slot, added] = vocab.try_emplace(std::string(tokens[id]), id);
    if (!added) {
      return wrong_element(file, kTokens, id,
                           "is " + quote_name(tokens[id]) + ", and so is element " +
                               std::to_string(slot->second.get<size_t>()));
    }
  }
  return json(std::move(vocab));
}

Expected<json> merge_list(const GgufFile& file) {
  TRY(const std::vector<std::string_view> texts, read_texts(file, kMerges));
  json::array_t merges;
  merges.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    const size_t space = texts[i].find(' ');
    const bool two = space != std::string_view::npos && space > 0 && space + 1 < texts[i].size() &&
                     texts[i].find(' ', space + 1) == std::string_view::npos;
    if (!two) {
      return wrong_element(file, kMerges, i,
                           "is " + quote_name(texts[i]) + ", not two tokens and a space");
    }
    merges.push_back({texts[i].substr(0, space), texts[i].substr(space + 1)});
  }
  return json(std::move(merges));
}

Expected<json> added_tokens(const GgufFile& file, const std::vector<std::string_view>& tokens) {
  TRY(const std::vector<int64_t> types, file.integers(kTypes));
  if (!types.empty() && types.size() != tokens.size()) {
    return fail(ErrorCode::kCorrupt,
                file.where() + ": " + std::string(kTypes) + " has " + std::to_string(types.size()) +
                    " elements, " + std::string(kTokens) + " has " + std::to_string(tokens.size()));
  }
  json::array_t added;
  for (size_t id = 0; id < types.size(); ++id) {
    if (types[id] != kControl && types[id] != kUserDefined) continue;
    if (tokens[id].empty()) return wrong_element(file, kTokens, id, "is an empty special token");
    added.push_back(added_token(static_cast<int64_t>(id), tokens[id], types[id] == kControl));
  }
  return json(std::move(added));
}

json pre_tokenizer_json(const PreTokenizer& pre) {
  json::array_t steps;
  for (const char* split : pre.splits) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", split}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back(byte_level(false));
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

json special(std::string_view token) { return {{"SpecialToken", {{"id", token}, {"type_id", 0}}}}; }
json sequence(const char* name, int type) {
  return {{"Sequence", {{"id", name}, {"type_id", type}}}};
}

// What frames an encoded text: bos before it, eos behind it, where the file asks for them.
Expected<json> post_processor(const GgufFile& file, const std::vector<std::string_view>& tokens,
                              const PreTokenizer& pre) {
  const auto last = static_cast<int64_t>(tokens.size()) - 1;
  json single = json::array();
  json pair = json::array();
  json used = json::object();
  const auto frame = [&](const char* flag, const char* key, bool otherwise) -> Status {
    TRY(const bool wanted, file.flag(flag, otherwise));
    if (!wanted || (otherwise && !file.has(key))) return {};
    TRY(const int64_t id, file.integer(key, 0, last));
    const std::string_view token = tokens[static_cast<size_t>(id)];
    single.push_back(special(token));
    pair.push_back(special(token));
    used[std::string(token)] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
    return {};
  };
  TRY_STATUS(frame("tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id", pre.adds_bos));
  single.push_back(sequence("A", 0));
  pair.push_back(sequence("A", 0));
  pair.push_back(sequence("B", 1));
  TRY_STATUS(frame("tokenizer.ggml.add_eos_token", "tokenizer.ggml.eos_token_id", false));
  if (used.empty()) return json(nullptr);
  return json{{"type", "TemplateProcessing"},
              {"single", std::move(single)},
              {"pair", std::move(pair)},
              {"special_tokens", std::move(used)}};
}

// --- the other way

constexpr int32_t kNormal = 1;
constexpr int32_t kUnused = 5;

const json& member(const json& object, const char* key) {
  static const json kNull;
  const auto found = object.find(key);
  return found == object.end() ? kNull : *found;
}

// What no pre-tokenizer of GGUF does.
constexpr const char* kNoName = "?";

// The splits of a pre-tokenizer, in order.
std::vector<std::string> splits_of(const json& pre) {
  const json& type = member(pre, "type");
  if (type == "Sequence") {
    std::vector<std::string> all;
    for (const json& step : member(pre, "pretokenizers")) {
      for (std::string& split : splits_of(step)) all.push_back(std::move(split));
    }
    return all;
  }
  if (type == "ByteLevel" && member(pre, "add_prefix_space") == false) {
    if (member(pre, "use_regex") == false) return {};
    return {kGpt2Split};
  }
  if (type == "Digits" && member(pre, "individual_digits") == true) return {kDigit};
  const json& pattern = member(member(pre, "pattern"), "Regex");
  const bool isolates = member(pre, "behavior") == "Isolated" && member(pre, "invert") != true;
  if (type == "Split" && pattern.is_string() && isolates) return {pattern.get<std::string>()};
  return {kNoName};
}

// What a normalizer does, step by step.
std::vector<std::string> forms_of(const json& normalizer) {
  if (normalizer.is_null()) return {};
  const json& type = member(normalizer, "type");
  if (type != "Sequence") return {type.is_string() ? type.get<std::string>() : kNoName};
  std::vector<std::string> all;
  for (const json& step : member(normalizer, "normalizers")) {
    for (std::string& form : forms_of(step)) all.push_back(std::move(form));
  }
  return all;
}

Expected<std::string> name_of(const json& document) {
  const std::vector<std::string> splits = splits_of(member(document, "pre_tokenizer"));
  const std::vector<std::string> forms = forms_of(member(document, "normalizer"));
  for (const PreTokenizer& row : pre_tokenizers()) {
    if (row.name == "default") continue;  // what readers warn of
    const std::vector<std::string> want(row.splits.begin(), row.splits.end());
    const std::vector<std::string> composed(row.composes ? 1 : 0, "NFC");
    // whole_words need not agree: the merges of a trained vocabulary lead to every token of it.
    if (splits == want && forms == composed) return std::string(row.name);
  }
  return fail(ErrorCode::kUnsupported,
              "tokenizer.json: GGUF has no name for its normalizer and pre-tokenizer that this "
              "build knows");
}

Status place(const std::string& token, const json& id, int32_t type, GgufVocabulary& out) {
  if (!id.is_number_unsigned() || id.get<uint64_t>() >= out.tokens.size()) {
    return fail(ErrorCode::kCorrupt, "tokenizer.json: the id of " + quote_name(token) +
                                         " is not below the " + std::to_string(out.tokens.size()) +
                                         " rows of the embedding");
  }
  out.tokens[id.get<size_t>()] = token;
  out.types[id.get<size_t>()] = type;
  return {};
}

// "left right", from a string or a pair.
Expected<std::string> merge_text(const json& merge) {
  if (merge.is_string()) return merge.get<std::string>();
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
    return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  return fail(ErrorCode::kCorrupt, "tokenizer.json: a merge is not two tokens");
}

// Tokens that a post-processor puts before and behind a text.
struct Frame {
  std::vector<int32_t> before, behind;
};

Status add_pieces(const json& post, Frame& frame) {
  for (const json& step : member(post, "processors")) TRY_STATUS(add_pieces(step, frame));
  std::vector<int32_t>* side = &frame.before;
  for (const json& piece : member(post, "single")) {
    const json& special = member(piece, "SpecialToken");
    if (special.is_null()) {
      side = &frame.behind;
      continue;
    }
    const json& name = member(special, "id");
    const json& specials = member(post, "special_tokens");
    if (!name.is_string() || !specials.contains(name.get<std::string>())) {
      return fail(ErrorCode::kCorrupt, "tokenizer.json: post_processor names no special token");
    }
    for (const json& id : member(specials[name.get<std::string>()], "ids")) {
      if (!id.is_number_unsigned() || id.get<uint64_t>() > INT32_MAX) {
        return fail(ErrorCode::kCorrupt, "tokenizer.json: post_processor holds an id that is none");
      }
      side->push_back(id.get<int32_t>());
    }
  }
  return {};
}

Status add_frame(const json& document, GgufVocabulary& out) {
  Frame frame;
  TRY_STATUS(add_pieces(member(document, "post_processor"), frame));
  if (frame.before.size() > 1 || frame.behind.size() > 1) {
    return fail(ErrorCode::kUnsupported,
                "tokenizer.json: the post_processor puts " + std::to_string(frame.before.size()) +
                    " tokens before a text and " + std::to_string(frame.behind.size()) +
                    " behind it; GGUF has room for one and one");
  }
  if (!frame.before.empty()) out.bos = frame.before.front();
  if (!frame.behind.empty()) out.eos = frame.behind.front();
  return {};
}

}  // namespace

Expected<GgufVocabulary> gguf_vocabulary(const std::string& tokenizer_json, int32_t vocab_size) {
  TRY(const JsonDocument parsed, parse_json(tokenizer_json, "tokenizer.json", 0, 64));
  const json& document = parsed.root;
  const json& model = member(document, "model");
  const json& vocab = member(model, "vocab");
  if (member(model, "type") != "BPE" || !vocab.is_object() ||
      member(model, "byte_fallback") == true) {
    return fail(ErrorCode::kUnsupported,
                "tokenizer.json: only byte-level BPE is written to GGUF so far");
  }
  GgufVocabulary out;
  TRY(out.pre, name_of(document));
  for (int32_t id = 0; id < vocab_size; ++id)
    out.tokens.push_back("[PAD" + std::to_string(id) + "]");
  out.types.assign(out.tokens.size(), kUnused);
  for (const auto& [token, id] : vocab.items()) TRY_STATUS(place(token, id, kNormal, out));
  for (const json& added : member(document, "added_tokens")) {
    const json& content = member(added, "content");
    if (!content.is_string()) return fail(ErrorCode::kCorrupt, "tokenizer.json: added_tokens");
    const auto type = member(added, "special") == true ? kControl : kUserDefined;
    TRY_STATUS(
        place(content.get<std::string>(), member(added, "id"), static_cast<int32_t>(type), out));
  }
  for (const json& merge : member(model, "merges")) {
    TRY(std::string text, merge_text(merge));
    out.merges.push_back(std::move(text));
  }
  TRY_STATUS(add_frame(document, out));
  return out;
}

Expected<std::string> gguf_tokenizer_json(const GgufFile& file, int32_t vocab_size) {
  TRY(const PreTokenizer* pre, find_pre_tokenizer(file));
  TRY(const std::vector<std::string_view> tokens, read_tokens(file, vocab_size));
  TRY(json vocab, vocabulary(file, tokens));
  TRY(json merges, merge_list(file));
  TRY(json added, added_tokens(file, tokens));
  TRY(json frame, post_processor(file, tokens, *pre));
  return tokenizer_document({.vocab = std::move(vocab),
                             .merges = std::move(merges),
                             .added_tokens = std::move(added),
                             .normalizer = pre->composes ? json{{"type", "NFC"}} : json(nullptr),
                             .pre_tokenizer = pre_tokenizer_json(*pre),
                             .post_processor = std::move(frame),
                             .whole_words = pre->whole_words})
      .dump();
}

}  // namespace coppice::model
