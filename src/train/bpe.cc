#include "train/bpe.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <nlohmann/json.hpp>

namespace coppice::train {
namespace {

using nlohmann::ordered_json;

constexpr const char* kSpecials[] = {"<|bos|>", "<|eos|>", "<|pad|>"};

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
int kind(char c) { return is_letter(c) ? 0 : is_digit(c) ? 1 : is_space(c) ? 3 : 2; }

size_t contraction(std::string_view rest) {
  for (std::string_view c : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (rest.substr(0, c.size()) == c) return c.size();
  }
  return 0;
}

size_t next_word(std::string_view rest) {
  if (size_t n = contraction(rest)) return n;
  const size_t lead = rest[0] == ' ' && rest.size() > 1 ? 1 : 0;
  const int k = kind(rest[lead]);
  size_t n = lead;
  if (k != 3) {
    while (n < rest.size() && kind(rest[n]) == k) ++n;
    return n;
  }
  n = 0;
  while (n < rest.size() && is_space(rest[n])) ++n;
  // \s+(?!\S): leave the last blank to the word that follows, unless it is the only one.
  return n < rest.size() && n > 1 ? n - 1 : n;
}

std::string utf8(uint32_t c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
}

// The printable stand-in of each byte (GPT-2's bytes_to_unicode).
std::vector<std::string> byte_names() {
  std::vector<std::string> names(256);
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    names[b] = utf8(printable ? b : next++);
  }
  return names;
}

std::string printable(const std::string& bytes, const std::vector<std::string>& names) {
  std::string out;
  for (unsigned char b : bytes) out += names[b];
  return out;
}

Status write_json(const std::filesystem::path& path, const ordered_json& json) {
  std::ofstream file(path);
  file << json.dump(1) << "\n";
  file.close();
  if (!file) return fail(ErrorCode::kInternal, path.string() + ": cannot write");
  return {};
}

ordered_json added_token(int32_t id, const std::string& name) {
  return {{"id", id},        {"content", name},     {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", true}};
}

}  // namespace

std::vector<std::string_view> split_words(std::string_view text) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t n = next_word(text);
    out.push_back(text.substr(0, n));
    text.remove_prefix(n);
  }
  return out;
}

void Bpe::start() {
  for (const char* name : kSpecials) tokens_.emplace_back(name);
  special_.assign(tokens_.size(), true);
  first_byte_ = static_cast<int32_t>(tokens_.size());
  for (int b = 0; b < 256; ++b) tokens_.emplace_back(1, static_cast<char>(b));
  special_.resize(tokens_.size(), false);
  first_merge_ = static_cast<int32_t>(tokens_.size());
}

void Bpe::add_merge(Pair pair) {
  ranks_[pair] = static_cast<int32_t>(merges_.size());
  merges_.push_back(pair);
  tokens_.push_back(tokens_[static_cast<size_t>(pair.first)] +
                    tokens_[static_cast<size_t>(pair.second)]);
  special_.push_back(false);
}

void Bpe::fill(int vocab_size) {
  for (int n = 0; static_cast<int>(tokens_.size()) < vocab_size; ++n) {
    tokens_.push_back("<|reserved_" + std::to_string(n) + "|>");
    special_.push_back(true);
  }
}

Expected<Bpe> Bpe::train(std::string_view text, int vocab_size) {
  Bpe bpe;
  bpe.start();
  if (vocab_size < bpe.first_merge_) {
    return fail(ErrorCode::kInvalidArgument, "vocab size " + std::to_string(vocab_size) +
                                                 ": at least " + std::to_string(bpe.first_merge_));
  }
  std::map<std::string_view, int64_t> counts;
  for (std::string_view word : split_words(text)) ++counts[word];
  std::vector<std::pair<std::vector<int32_t>, int64_t>> words;
  for (const auto& [word, count] : counts) {
    std::vector<int32_t> ids;
    for (unsigned char b : word) ids.push_back(bpe.first_byte_ + b);
    words.emplace_back(std::move(ids), count);
  }
  while (bpe.vocab_size() < vocab_size) {
    std::map<Pair, int64_t> pairs;
    for (const auto& [ids, count] : words) {
      for (size_t i = 0; i + 1 < ids.size(); ++i) pairs[{ids[i], ids[i + 1]}] += count;
    }
    if (pairs.empty()) break;
    const auto best =
        std::max_element(pairs.begin(), pairs.end(), [](const auto& a, const auto& b) {
          return a.second < b.second;  // the first of equals: std::map is ordered
        });
    const Pair pair = best->first;
    const int32_t id = bpe.vocab_size();
    bpe.add_merge(pair);
    for (auto& [ids, count] : words) {
      size_t w = 0;
      for (size_t r = 0; r < ids.size(); ++r, ++w) {
        const bool hit = r + 1 < ids.size() && ids[r] == pair.first && ids[r + 1] == pair.second;
        ids[w] = hit ? id : ids[r];
        r += hit ? 1 : 0;
      }
      ids.resize(w);
    }
  }
  bpe.fill(vocab_size);
  return bpe;
}

void Bpe::encode_word(std::string_view word, std::vector<int32_t>& out) const {
  std::vector<int32_t> ids;
  for (unsigned char b : word) ids.push_back(first_byte_ + b);
  while (ids.size() > 1) {
    int32_t best = INT32_MAX;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rank = ranks_.find({ids[i], ids[i + 1]});
      if (rank != ranks_.end() && rank->second < best) {
        best = rank->second;
        at = i;
      }
    }
    if (best == INT32_MAX) break;
    ids[at] = first_merge_ + best;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  out.insert(out.end(), ids.begin(), ids.end());
}

Expected<std::vector<int32_t>> Bpe::encode(std::string_view text) const {
  for (size_t i = 0; i < text.size(); ++i) {
    if (static_cast<unsigned char>(text[i]) >= 0x80) {
      return fail(ErrorCode::kUnsupported,
                  "byte " + std::to_string(i) + ": the trainer's tokenizer reads ASCII text only");
    }
  }
  std::vector<int32_t> out;
  for (std::string_view word : split_words(text)) encode_word(word, out);
  return out;
}

std::string Bpe::decode(const std::vector<int32_t>& ids) const {
  std::string out;
  for (int32_t id : ids) {
    if (id >= 0 && id < vocab_size()) out += tokens_[static_cast<size_t>(id)];
  }
  return out;
}

Status Bpe::save(const std::filesystem::path& dir) const {
  const auto names = byte_names();
  ordered_json vocab = ordered_json::object();
  ordered_json added = ordered_json::array();
  for (size_t id = 0; id < tokens_.size(); ++id) {
    const bool special = special_[id];
    vocab[special ? tokens_[id] : printable(tokens_[id], names)] = id;
    if (special) added.push_back(added_token(static_cast<int32_t>(id), tokens_[id]));
  }
  ordered_json merges = ordered_json::array();
  for (const Pair& pair : merges_) {
    merges.push_back(printable(tokens_[static_cast<size_t>(pair.first)], names) + " " +
                     printable(tokens_[static_cast<size_t>(pair.second)], names));
  }
  const ordered_json byte_level = {{"type", "ByteLevel"},
                                   {"add_prefix_space", false},
                                   {"trim_offsets", true},
                                   {"use_regex", true}};
  const ordered_json model = {{"type", "BPE"},
                              {"dropout", nullptr},
                              {"unk_token", nullptr},
                              {"continuing_subword_prefix", nullptr},
                              {"end_of_word_suffix", nullptr},
                              {"fuse_unk", false},
                              {"byte_fallback", false},
                              {"ignore_merges", false},
                              {"vocab", vocab},
                              {"merges", merges}};
  TRY_STATUS(write_json(dir / "tokenizer.json", {{"version", "1.0"},
                                                 {"truncation", nullptr},
                                                 {"padding", nullptr},
                                                 {"added_tokens", added},
                                                 {"normalizer", nullptr},
                                                 {"pre_tokenizer", byte_level},
                                                 {"post_processor", nullptr},
                                                 {"decoder", byte_level},
                                                 {"model", model}}));
  return write_json(dir / "tokenizer_config.json", {{"tokenizer_class", "PreTrainedTokenizerFast"},
                                                    {"bos_token", kSpecials[kBos]},
                                                    {"eos_token", kSpecials[kEos]},
                                                    {"pad_token", kSpecials[kPad]},
                                                    {"add_bos_token", false},
                                                    {"add_eos_token", false},
                                                    {"clean_up_tokenization_spaces", false},
                                                    {"model_max_length", 8192}});
}

Expected<Bpe> Bpe::load(const std::filesystem::path& dir) {
  const std::string path = (dir / "tokenizer.json").string();
  std::ifstream file(path);
  if (!file) return fail(ErrorCode::kNotFound, path + ": cannot open");
  const ordered_json json = ordered_json::parse(file, nullptr, false);
  const auto model = json.is_object() ? json.find("model") : json.end();
  if (model == json.end() || !model->is_object() || !model->contains("merges") ||
      !model->contains("vocab") || !(*model)["vocab"].is_object() ||
      !(*model)["merges"].is_array()) {
    return fail(ErrorCode::kCorrupt, path + ": no model with vocab and merges");
  }
  Bpe bpe;
  bpe.start();
  const auto names = byte_names();
  std::unordered_map<std::string, int32_t> id_of;
  for (int b = 0; b < 256; ++b) id_of[names[static_cast<size_t>(b)]] = bpe.first_byte_ + b;
  for (const auto& merge : (*model)["merges"]) {
    const std::string line = merge.is_string() ? merge.get<std::string>() : "";
    const size_t blank = line.find(' ');
    const auto a = id_of.find(line.substr(0, blank));
    const auto b = blank == std::string::npos ? id_of.end() : id_of.find(line.substr(blank + 1));
    if (a == id_of.end() || b == id_of.end()) {
      return fail(ErrorCode::kCorrupt, path + ": merge " + std::to_string(bpe.merges()) + " '" +
                                           line + "' names no earlier token");
    }
    id_of[a->first + b->first] = bpe.vocab_size();
    bpe.add_merge({a->second, b->second});
  }
  const auto& vocab = (*model)["vocab"];
  bpe.fill(static_cast<int>(vocab.size()));
  for (const auto& [token, id] : id_of) {
    const auto found = vocab.find(token);
    if (found == vocab.end() || !found->is_number_integer() || found->get<int64_t>() != id) {
      return fail(ErrorCode::kCorrupt, path + ": vocab '" + token + "' is not " +
                                           std::to_string(id) + " as its merges say");
    }
  }
  return bpe;
}

}  // namespace coppice::train
