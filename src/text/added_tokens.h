// What:    the added-tokens stage: tokens that are found in the text before anything else looks.
// Owns:    their spellings and two search trees, for the text as it is and as normalised.
// Threads: const use from any thread.
// Fails:   load: kCorrupt naming the key.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "coppice/error.h"
#include "text/json.h"
#include "text/normalizer.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

namespace coppice::text {

struct AddedToken {
  TokenId id;
  std::string content;   // as in the file
  std::string searched;  // what is looked for: `content`, normalised where asked
  bool special = false;
  bool normalized = false;   // found in the normalised text
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and behind it
  bool single_word = false;  // only where no word goes on
};

// Spellings by byte, to find the longest one that begins at a place.
class SpellingTree {
 public:
  void add(std::string_view spelling, int32_t value);
  bool has(std::string_view spelling) const;
  // The value of the longest spelling that text begins with, or -1; *length gets its length.
  int32_t longest(std::string_view text, size_t* length) const;
  bool begins(uint8_t byte) const { return first_[byte] >= 0; }
  SpellingTree() { first_.fill(-1); }

 private:
  int32_t child(int32_t node, uint8_t byte) const;

  std::array<int32_t, 256> first_;                  // nodes of the first byte
  std::unordered_map<uint64_t, int32_t> children_;  // node * 256 + byte -> node
  std::vector<int32_t> values_;                     // per node; -1: no spelling ends here
};

class AddedTokens {
 public:
  enum class In { kText, kNormalizedText };
  struct Part {
    std::string_view text;
    TokenId id = -1;  // an added token, or -1 for text between
  };

  // tokenizer.json's `added_tokens`. Tokens that model.vocab lacks must go on where its ids end.
  static Expected<AddedTokens> load(const JsonAt& config, const Vocab& vocab,
                                    const Normalizer& normalizer);

  // Cuts text at the tokens that are looked for in it; the leftmost and then longest wins.
  // Parts that would be empty are left out.
  void split(In where, std::string_view text, std::vector<Part>* parts) const;

  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  Status add(AddedToken token, const JsonAt& at);
  void add_match(const AddedToken& token, std::string_view text, size_t begin, size_t end,
                 size_t* done, std::vector<Part>* parts) const;

  std::vector<AddedToken> tokens_;
  SpellingTree in_text_, in_normalized_;  // values: indices of tokens_
};

}  // namespace coppice::text
