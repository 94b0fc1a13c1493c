// What:    text to token ids and back, as a tokenizer.json declares it (byte-level BPE).
// Owns:    the vocabulary and merges.
// Threads: const methods may run on any number of threads.
// Fails:   load: kCorrupt or kUnsupported naming the key in tokenizer.json and what works.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"

namespace coppice::text {

using TokenId = int32_t;

class Tokenizer {
 public:
  // json: tokenizer.json's text; where: named in errors.
  static Expected<std::unique_ptr<Tokenizer>> load(const std::string& json,
                                                   const std::string& where);
  virtual ~Tokenizer() = default;

  // add_special: run the post-processor (bos and the like). Special tokens spelled in the text are
  // recognised. Bytes that are not UTF-8 are encoded byte by byte.
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special) const = 0;
  // Whole text of ids; special tokens left out unless asked for. Invalid UTF-8 becomes U+FFFD.
  virtual std::string decode(const std::vector<TokenId>& ids, bool keep_special) const = 0;
  // The bytes one token stands for (may be part of a character); empty for special tokens.
  virtual std::string_view token_bytes(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;
  virtual int32_t vocab_size() const = 0;
  virtual std::optional<TokenId> find(
      std::string_view token) const = 0;  // by its spelling in the file
};

// Turns a stream of tokens into text that never ends in half a character.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // The text that became complete with this token.
  std::string push(TokenId id);
  // What is left at the end (U+FFFD for an unfinished character).
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::string pending_;  // at most 3 bytes of an unfinished character
};

}  // namespace coppice::text
