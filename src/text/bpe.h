// What:    byte-pair encoding of one word: its characters, joined by the merges in rank order.
// Owns:    vocabulary and merges.
// Threads: const use from any thread; a Scratch belongs to one.
// Fails:   never.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/pair_map.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

namespace coppice::text {

class Bpe {
 public:
  // left and right become result; a merge's rank is its place in the list.
  struct Merge {
    TokenId left, right, result;
  };
  struct Options {
    std::optional<TokenId> unknown;  // stands for characters the vocabulary lacks; else they go
    bool fuse_unknown = false;       // one for a run of them
    bool ignore_merges = false;      // a word that is a token is that token
  };
  // Working memory, reused from word to word.
  class Scratch {
    friend class Bpe;
    struct Symbol {
      TokenId id;
      bool gone;              // joined into the symbol to the left
      ptrdiff_t left, right;  // neighbours that are not gone; -1 at the ends
    };
    struct Candidate {
      uint32_t rank;
      TokenId result;
      ptrdiff_t at;  // the left one of the pair
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> queue;
  };

  Bpe(Vocab vocab, const std::vector<Merge>& merges, Options options);

  // Appends the tokens of the word (well-formed UTF-8), in O(n log n).
  void encode(std::string_view word, Scratch* scratch, std::vector<TokenId>* out) const;

  const Vocab& vocab() const { return vocab_; }

 private:
  std::optional<TokenId> char_token(std::string_view character, int32_t code_point) const;
  void start(std::string_view word, Scratch* scratch) const;
  void propose(Scratch* scratch, ptrdiff_t at) const;
  void merge_all(Scratch* scratch) const;

  Vocab vocab_;
  PairMap merges_;
  Options options_;
  std::array<TokenId, 0x200> char_tokens_;  // of the characters up to U+01FF; -1: none
};

}  // namespace coppice::text
