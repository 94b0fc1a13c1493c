// What:    from a pair of neighbouring tokens to the merge that joins them.
// Owns:    a flat hash table, at most half full.
// Threads: const use from any thread.
// Fails:   never.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "text/tokenizer.h"

namespace coppice::text {

class PairMap {
 public:
  struct Merge {
    uint32_t rank;  // the smaller, the earlier
    TokenId result;
  };

  explicit PairMap(size_t expected)
      : slots_(std::bit_ceil(expected * 2 + 2)), mask_(slots_.size() - 1) {}

  // left, right >= 0. At most `expected` different pairs. A pair set again keeps the later merge.
  void set(TokenId left, TokenId right, Merge merge) {
    const uint64_t key = key_of(left, right);
    slots_[slot_of(key)] = {key, merge};
  }

  const Merge* find(TokenId left, TokenId right) const {
    const Slot& slot = slots_[slot_of(key_of(left, right))];
    return slot.key == kEmpty ? nullptr : &slot.merge;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };

  static uint64_t key_of(TokenId left, TokenId right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }

  // The slot that holds the key, or the empty one where it belongs.
  size_t slot_of(uint64_t key) const {
    uint64_t hash = (key ^ key >> 32) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
    size_t at = hash & mask_;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask_;
    return at;
  }

  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace coppice::text
