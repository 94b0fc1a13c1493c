#include "text/tokenizer.h"

#include <utility>

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/bpe_model.h"
#include "text/byte_alphabet.h"
#include "text/decoder.h"
#include "text/json.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

// The stages of a tokenizer.json, in the order a text meets them.
struct Stages {
  AddedTokens added;
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  Bpe model;
  PostProcessor post_processor;
  TokenBytes token_bytes;
};

class StagedTokenizer : public Tokenizer {
 public:
  explicit StagedTokenizer(Stages stages) : stages_(std::move(stages)) {
    const Vocab& vocab = stages_.model.vocab();
    std::vector<std::string_view> spellings;
    spellings.reserve(vocab.size() + stages_.added.tokens().size());
    for (TokenId id = 0; id < vocab.size(); ++id) spellings.push_back(vocab.spelling(id));
    for (const AddedToken& token : stages_.added.tokens()) {
      if (token.id >= static_cast<TokenId>(spellings.size())) spellings.push_back("");
      spellings[token.id] = token.searched;  // as normalised: that is what the decoder turns back
      added_ids_.emplace(token.content, token.id);
    }
    special_.resize(spellings.size(), false);
    for (const AddedToken& token : stages_.added.tokens()) special_[token.id] = token.special;
    for (const std::string_view spelling : spellings) {
      bytes_ += stages_.token_bytes(spelling);
      ends_.push_back(bytes_.size());
    }
  }

  std::vector<TokenId> encode(std::string_view text, bool add_special) const override {
    std::vector<TokenId> out;
    const PostProcessor& around = stages_.post_processor;
    if (add_special) out = around.before;
    Bpe::Scratch scratch;
    std::vector<AddedTokens::Part> parts;
    stages_.added.split(AddedTokens::In::kText, text, &parts);
    for (const AddedTokens::Part& part : parts) {
      if (part.id >= 0) {
        out.push_back(part.id);
      } else {
        encode_bytes(part.text, &scratch, &out);
      }
    }
    if (add_special) out.insert(out.end(), around.after.begin(), around.after.end());
    return out;
  }

  std::string decode(const std::vector<TokenId>& ids, bool keep_special) const override {
    std::string bytes;
    for (const TokenId id : ids) {
      if (known(id) && (keep_special || !special_[id])) bytes += stored_bytes(id);
    }
    std::string out;
    append_lossy(bytes, false, &out);
    return out;
  }

  std::string_view token_bytes(TokenId id) const override {
    return known(id) && !special_[id] ? stored_bytes(id) : std::string_view();
  }
  bool is_special(TokenId id) const override { return known(id) && special_[id]; }
  int32_t vocab_size() const override { return static_cast<int32_t>(ends_.size()); }

  std::optional<TokenId> find(std::string_view token) const override {
    const auto added = added_ids_.find(token);
    return added != added_ids_.end() ? added->second : stages_.model.vocab().find(token);
  }

 private:
  bool known(TokenId id) const { return id >= 0 && id < vocab_size(); }

  std::string_view stored_bytes(TokenId id) const {
    const size_t begin = id == 0 ? 0 : ends_[id - 1];
    return std::string_view(bytes_).substr(begin, ends_[id] - begin);
  }

  // Well-formed stretches go through the stages; bytes between them are words of one byte.
  void encode_bytes(std::string_view text, Bpe::Scratch* scratch, std::vector<TokenId>* out) const {
    bool continues = false;
    while (!text.empty()) {
      const size_t good = valid_utf8_prefix(text);
      if (good > 0) encode_text(text.substr(0, good), continues, scratch, out);
      text.remove_prefix(good);
      const Utf8Char bad = decode_utf8(text);
      for (const char byte : text.substr(0, bad.length)) {
        std::string word;
        append_byte_chars(std::string_view(&byte, 1), &word);
        stages_.model.encode(word, scratch, out);
      }
      text.remove_prefix(bad.length);
      continues = true;
    }
  }

  // text: well-formed UTF-8 without the added tokens that are looked for before normalisation.
  void encode_text(std::string_view text, bool continues, Bpe::Scratch* scratch,
                   std::vector<TokenId>* out) const {
    const std::string normalized = stages_.normalizer->apply(text);
    std::vector<AddedTokens::Part> parts;
    stages_.added.split(AddedTokens::In::kNormalizedText, normalized, &parts);
    Words words;
    for (const AddedTokens::Part& part : parts) {
      if (part.id >= 0) {
        out->push_back(part.id);
        continues = false;
        continue;
      }
      words.text = part.text;
      words.spans = {{0, part.text.size()}};
      words.continues = std::exchange(continues, false);
      stages_.pre_tokenizer->apply(&words);
      for (const Words::Span& span : words.spans) {
        stages_.model.encode(std::string_view(words.text).substr(span.begin, span.end - span.begin),
                             scratch, out);
      }
    }
  }

  Stages stages_;
  std::unordered_map<std::string_view, TokenId> added_ids_;
  std::vector<bool> special_;  // by id
  std::string bytes_;          // what the tokens stand for, one after the other
  std::vector<size_t> ends_;   // where each token's bytes end
};

Status check_version(const JsonAt& root) {
  if (!root.has("version")) return {};
  TRY(const std::string version, root.string("version"));
  if (version == "1.0") return {};
  return root.get("version").unsupported("is " + in_quotes(version) + "; what works: \"1.0\"");
}

// `truncation` and `padding` are left aside: they are one caller's habits, not the vocabulary's.
Expected<std::unique_ptr<Tokenizer>> load_stages(const JsonAt& root) {
  TRY_STATUS(root.object());
  TRY_STATUS(check_version(root));
  TRY(const JsonAt model_at, root.at("model"));
  TRY(Bpe model, load_bpe(model_at));
  TRY(auto normalizer, load_normalizer(root.get("normalizer")));
  TRY(auto pre_tokenizer, load_pre_tokenizer(root.get("pre_tokenizer")));
  TRY(AddedTokens added, AddedTokens::load(root.get("added_tokens"), model.vocab(), *normalizer));
  int32_t size = model.vocab().size();
  for (const AddedToken& token : added.tokens()) size = std::max(size, token.id + 1);
  TRY(PostProcessor post_processor, PostProcessor::load(root.get("post_processor"), size));
  TRY(const TokenBytes token_bytes, load_decoder(root.get("decoder")));
  return std::make_unique<StagedTokenizer>(Stages{std::move(added), std::move(normalizer),
                                                  std::move(pre_tokenizer), std::move(model),
                                                  std::move(post_processor), token_bytes});
}

}  // namespace

Expected<std::unique_ptr<Tokenizer>> Tokenizer::load(const std::string& json,
                                                     const std::string& where) {
  TRY(const Json root, parse_json(json, where));
  return load_stages(JsonAt(root, where + ":"));
}

std::string IncrementalDecoder::push(TokenId id) {
  pending_ += tokenizer_.token_bytes(id);
  std::string out;
  const size_t left = append_lossy(pending_, true, &out);
  pending_.erase(0, pending_.size() - left);
  return out;
}

std::string IncrementalDecoder::finish() {
  std::string out;
  append_lossy(pending_, false, &out);
  pending_.clear();
  return out;
}

}  // namespace coppice::text
