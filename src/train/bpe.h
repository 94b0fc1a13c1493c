// What:    byte-level BPE in Hugging Face's file form (GPT-2's pattern): train, encode.
// Owns:    its vocabulary and merge ranks.
// Threads: const use from any thread.
// Fails:   kCorrupt (file, field) on load, kUnsupported (byte) for text that is not ASCII.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "coppice/error.h"

namespace coppice::train {

class Bpe {
 public:
  static constexpr int32_t kBos = 0;
  static constexpr int32_t kEos = 1;
  static constexpr int32_t kPad = 2;

  // Merges the most frequent pair (ties: smaller ids) until every word is one token or vocab_size
  // is reached; the rest is filled with reserved tokens, so that vocab_size() == vocab_size.
  static Expected<Bpe> train(std::string_view text, int vocab_size);
  // Reads tokenizer.json as save() writes it.
  static Expected<Bpe> load(const std::filesystem::path& dir);
  // Writes tokenizer.json and tokenizer_config.json.
  Status save(const std::filesystem::path& dir) const;

  // Text to ids; nothing is added at either end. Special tokens in the text are not recognised.
  Expected<std::vector<int32_t>> encode(std::string_view text) const;
  // Ids to bytes; special tokens are written as their names, ids outside the vocabulary as nothing.
  std::string decode(const std::vector<int32_t>& ids) const;

  int vocab_size() const { return static_cast<int>(tokens_.size()); }
  int merges() const { return static_cast<int>(merges_.size()); }

 private:
  using Pair = std::pair<int32_t, int32_t>;

  void start();
  void add_merge(Pair pair);
  void fill(int vocab_size);
  void encode_word(std::string_view word, std::vector<int32_t>& out) const;

  std::vector<std::string> tokens_;  // id -> bytes (special tokens: their name)
  std::vector<bool> special_;        // id -> special
  std::vector<Pair> merges_;         // in rank order
  std::map<Pair, int32_t> ranks_;    // pair -> rank; the merged id is first_merge_ + rank
  int32_t first_byte_ = 0;
  int32_t first_merge_ = 0;
};

// Words by GPT-2's pattern, for ASCII text: contractions; letters, digits or other marks, each run
// with at most one blank before it; blanks, of which the last goes to the word that follows.
std::vector<std::string_view> split_words(std::string_view text);

}  // namespace coppice::train
