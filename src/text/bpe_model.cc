#include "text/bpe_model.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/byte_alphabet.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

Status refuse_options(const JsonAt& config) {
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!config.has(key)) continue;
    TRY(const std::string text, config.string(key));
    if (!text.empty()) {
      return config.get(key).unsupported("is " + in_quotes(text) + "; what works: null or \"\"");
    }
  }
  if (config.has("dropout")) {
    const Json& dropout = config.get("dropout").value();
    if (!dropout.is_number()) return config.get("dropout").corrupt("must be a number or null");
    if (dropout.get<double>() != 0) {
      return config.get("dropout").unsupported("is not 0; what works: null or 0");
    }
  }
  TRY(const bool byte_fallback, config.flag("byte_fallback"));
  if (byte_fallback) {
    return config.get("byte_fallback").unsupported("is true; what works: false");
  }
  return {};
}

Expected<Vocab> load_vocab(const JsonAt& config) {
  TRY_STATUS(config.object());
  const size_t size = config.value().size();
  std::vector<std::string> spellings(size);
  std::vector<bool> seen(size, false);
  for (const auto& [spelling, value] : config.value().get_ref<const Json::object_t&>()) {
    const bool fits =
        value.is_number_unsigned() && value.get<uint64_t>() < size && !seen[value.get<uint64_t>()];
    if (!fits) {
      const JsonAt at(value, config.path() + "[" + in_quotes(spelling) + "]");
      TRY(const TokenId id, at.id());
      const bool taken = static_cast<size_t>(id) < size;
      return at.corrupt("is " + std::to_string(id) +
                        (taken ? ", as is " + in_quotes(spellings[id])
                               : ", but " + std::to_string(size) + " tokens have the ids 0 to " +
                                     std::to_string(size - 1) + ", without holes"));
    }
    seen[value.get<uint64_t>()] = true;
    spellings[value.get<uint64_t>()] = spelling;
  }
  return Vocab(std::move(spellings));
}

// The two halves of a merge in either spelling; empty when it is neither. Points into the merge.
std::optional<std::pair<std::string_view, std::string_view>> halves_of(const Json& merge) {
  if (merge.is_string()) {
    const std::string_view text = merge.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space == text.npos || text.find(' ', space + 1) != text.npos) return {};
    return std::pair(text.substr(0, space), text.substr(space + 1));
  }
  const bool pair =
      merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
  if (!pair) return {};
  return std::pair<std::string_view, std::string_view>(merge[0].get_ref<const std::string&>(),
                                                       merge[1].get_ref<const std::string&>());
}

Expected<TokenId> merge_token(const JsonAt& config, size_t index, const Vocab& vocab,
                              std::string_view spelling) {
  if (const auto id = vocab.find(spelling)) return *id;
  return config.item(index).corrupt("needs the token " + in_quotes(spelling) +
                                    ", which model.vocab lacks");
}

Expected<std::vector<Bpe::Merge>> load_merges(const JsonAt& config, const Vocab& vocab) {
  TRY_STATUS(config.array());
  std::vector<Bpe::Merge> merges;
  merges.reserve(config.value().size());
  for (size_t i = 0; i < config.value().size(); ++i) {
    const auto halves = halves_of(config.value()[i]);
    // merges.txt's first line, carried over.
    if (halves && halves->first.starts_with("#version") && config.value()[i].is_string()) continue;
    if (!halves) return config.item(i).corrupt("must be \"a b\" or [\"a\", \"b\"], two tokens");
    const std::string joined = std::string(halves->first).append(halves->second);
    Bpe::Merge merge;
    TRY(merge.left, merge_token(config, i, vocab, halves->first));
    TRY(merge.right, merge_token(config, i, vocab, halves->second));
    TRY(merge.result, merge_token(config, i, vocab, joined));
    merges.push_back(merge);
  }
  return merges;
}

bool has_every_byte(const Vocab& vocab) {
  for (int byte = 0; byte < 256; ++byte) {
    std::string character;
    append_utf8(byte_to_char(static_cast<uint8_t>(byte)), &character);
    if (!vocab.find(character)) return false;
  }
  return true;
}

Expected<Bpe::Options> load_options(const JsonAt& config, const Vocab& vocab) {
  Bpe::Options options;
  TRY(options.ignore_merges, config.flag("ignore_merges"));
  TRY(options.fuse_unknown, config.flag("fuse_unk"));
  if (config.has("unk_token")) {
    TRY(const std::string unknown, config.string("unk_token"));
    options.unknown = vocab.find(unknown);
    // Where every byte has its token nothing is unknown, and old files name any token here.
    if (!options.unknown && !has_every_byte(vocab)) {
      return config.get("unk_token")
          .corrupt("is " + in_quotes(unknown) + ", which model.vocab lacks");
    }
  }
  return options;
}

}  // namespace

Expected<Bpe> load_bpe(const JsonAt& config) {
  // The oldest files leave the type out.
  std::string type = "BPE";
  if (config.value().is_object() && config.has("type")) {
    TRY(type, config.string("type"));
  }
  if (type != "BPE") {
    return config.get("type").unsupported("is " + in_quotes(type) + "; what works: BPE");
  }
  TRY_STATUS(refuse_options(config));
  TRY(const JsonAt vocab_at, config.at("vocab"));
  TRY(Vocab vocab, load_vocab(vocab_at));
  TRY(const JsonAt merges_at, config.at("merges"));
  TRY(const auto merges, load_merges(merges_at, vocab));
  TRY(const Bpe::Options options, load_options(config, vocab));
  return Bpe(std::move(vocab), merges, options);
}

}  // namespace coppice::text
