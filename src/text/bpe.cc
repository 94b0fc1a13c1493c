#include "text/bpe.h"

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace coppice::text {

Bpe::Bpe(Vocab vocab, const std::vector<Merge>& merges, Options options)
    : vocab_(std::move(vocab)), merges_(merges.size()), options_(options) {
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    merges_.set(merge.left, merge.right, {static_cast<uint32_t>(rank), merge.result});
  }
  for (int32_t c = 0; c < static_cast<int32_t>(char_tokens_.size()); ++c) {
    std::string character;
    append_utf8(c, &character);
    char_tokens_[c] = vocab_.find(character).value_or(-1);
  }
}

void Bpe::encode(std::string_view word, Scratch* scratch, std::vector<TokenId>* out) const {
  if (word.empty()) return;
  if (options_.ignore_merges) {
    if (const auto whole = vocab_.find(word)) {
      out->push_back(*whole);
      return;
    }
  }
  start(word, scratch);
  merge_all(scratch);
  for (const Scratch::Symbol& symbol : scratch->symbols) {
    if (!symbol.gone) out->push_back(symbol.id);
  }
}

std::optional<TokenId> Bpe::char_token(std::string_view character, int32_t code_point) const {
  if (code_point < static_cast<int32_t>(char_tokens_.size())) {
    const TokenId id = char_tokens_[code_point];
    return id < 0 ? std::nullopt : std::optional(id);
  }
  return vocab_.find(character);
}

// One symbol per character; a character without a token becomes `unknown` or nothing.
void Bpe::start(std::string_view word, Scratch* scratch) const {
  auto& symbols = scratch->symbols;
  symbols.clear();
  bool after_unknown = false;
  while (!word.empty()) {
    const Utf8Char c = decode_utf8(word);
    auto id = char_token(word.substr(0, c.length), c.code_point);
    word.remove_prefix(c.length);
    const bool known = id.has_value();
    if (!known) {
      const bool fused = options_.fuse_unknown && after_unknown;
      id = fused ? std::nullopt : options_.unknown;
      after_unknown = options_.unknown.has_value();
    } else {
      after_unknown = false;
    }
    if (!id) continue;
    const ptrdiff_t at = static_cast<ptrdiff_t>(symbols.size());
    if (at > 0) symbols.back().right = at;
    symbols.push_back({*id, false, at - 1, -1});
  }
}

namespace {
// Heap order: the smallest rank first, then the leftmost.
constexpr auto kLater = [](const auto& a, const auto& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
};
}  // namespace

void Bpe::propose(Scratch* scratch, ptrdiff_t at) const {
  const Scratch::Symbol& symbol = scratch->symbols[at];
  if (symbol.right < 0) return;
  const PairMap::Merge* merge = merges_.find(symbol.id, scratch->symbols[symbol.right].id);
  if (merge != nullptr) scratch->queue.push_back({merge->rank, merge->result, at});
}

void Bpe::merge_all(Scratch* scratch) const {
  auto& symbols = scratch->symbols;
  auto& queue = scratch->queue;
  queue.clear();
  const auto propose_at = [&](ptrdiff_t at) {
    const size_t before = queue.size();
    propose(scratch, at);
    if (queue.size() != before) std::push_heap(queue.begin(), queue.end(), kLater);
  };
  for (size_t at = 0; at < symbols.size(); ++at) propose(scratch, static_cast<ptrdiff_t>(at));
  std::make_heap(queue.begin(), queue.end(), kLater);

  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), kLater);
    const Scratch::Candidate best = queue.back();
    queue.pop_back();
    Scratch::Symbol& left = symbols[best.at];
    if (left.gone || left.right < 0) continue;
    Scratch::Symbol& right = symbols[left.right];
    // The pair may have changed since it was proposed. As in the reference, what counts is what
    // the pair becomes, not its rank.
    const PairMap::Merge* now = merges_.find(left.id, right.id);
    if (now == nullptr || now->result != best.result) continue;
    left.id = best.result;
    left.right = right.right;
    right.gone = true;
    if (left.right >= 0) symbols[left.right].left = best.at;
    if (left.left >= 0) propose_at(left.left);
    propose_at(best.at);
  }
}

}  // namespace coppice::text
