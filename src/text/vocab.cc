#include "text/vocab.h"

#include "base/check.h"

namespace coppice::text {

Vocab::Vocab(std::vector<std::string> spellings) : spellings_(std::move(spellings)) {
  by_spelling_.reserve(spellings_.size());
  for (size_t id = 0; id < spellings_.size(); ++id) {
    by_spelling_.emplace(spellings_[id], static_cast<TokenId>(id));
  }
  CHECK(by_spelling_.size() == spellings_.size());
}

std::optional<TokenId> Vocab::find(std::string_view spelling) const {
  const auto found = by_spelling_.find(spelling);
  if (found == by_spelling_.end()) return std::nullopt;
  return found->second;
}

}  // namespace coppice::text
