// What:    tokens by id and by spelling.
// Owns:    the spellings.
// Threads: const use from any thread.
// Fails:   never.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/tokenizer.h"

namespace coppice::text {

class Vocab {
 public:
  // spellings[id]; no two alike (CHECK).
  explicit Vocab(std::vector<std::string> spellings);
  Vocab(Vocab&&) = default;
  Vocab& operator=(Vocab&&) = default;

  int32_t size() const { return static_cast<int32_t>(spellings_.size()); }
  std::optional<TokenId> find(std::string_view spelling) const;
  const std::string& spelling(TokenId id) const { return spellings_[id]; }

 private:
  std::vector<std::string> spellings_;  // never changed: the map's keys look in
  std::unordered_map<std::string_view, TokenId> by_spelling_;
};

}  // namespace coppice::text
