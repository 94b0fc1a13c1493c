// What:    which of a context's keys and values a policy keeps, and the pages that takes.
// Owns:    plain values.
// Threads: any.
// Fails:   CHECKs sizes.
//
// "List" = layer * kv_heads + kv_head; T tokens of the context; P slots of a page. A list of n kept
// tokens takes n / P pages, rounded up: what the cache's own layout holds of it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace coppice::eviction {

struct KeepMask {
  int32_t lists = 0, tokens = 0;
  std::vector<uint8_t> keep;  // [lists][T]: 1 where kept

  KeepMask() = default;
  KeepMask(int32_t n, int32_t t, uint8_t value)
      : lists(n), tokens(t), keep(static_cast<size_t>(n) * static_cast<size_t>(t), value) {}
  std::span<uint8_t> list(int32_t i) { return {keep.data() + at(i), static_cast<size_t>(tokens)}; }
  std::span<const uint8_t> list(int32_t i) const {
    return {keep.data() + at(i), static_cast<size_t>(tokens)};
  }
  int32_t kept(int32_t list) const;
  int64_t pages(int32_t page_slots) const;      // of all lists
  double held_share(int32_t page_slots) const;  // of the pages of the whole context
  double kept_share() const;                    // of the tokens, mean over lists

 private:
  size_t at(int32_t i) const { return static_cast<size_t>(i) * static_cast<size_t>(tokens); }
};

// What every policy keeps, so that they differ in the rest alone.
struct Protection {
  int32_t sinks = 4;    // the first tokens
  int32_t window = 16;  // and the last
};

struct Budget {
  int64_t pages = 0;  // of all lists together
  int32_t lists = 1;
  int32_t page_slots = 16;
  Protection protection;
  // Of one list, where all get alike: the first ones have what does not divide.
  int64_t pages_of(int32_t list) const { return pages / lists + (list < pages % lists ? 1 : 0); }
};
// `share` of the pages that the whole context takes, down to a whole page, but no less than what is
// protected.
Budget make_budget(double share, int32_t lists, int32_t tokens, int32_t page_slots,
                   const Protection& protection);

// Which lists share their pages: `group` after one another (1: none), each sure of `floor` of what
// it would have alone.
struct Competition {
  int32_t group = 1;
  double floor = 0;
};

// scores [lists][T], larger first. Whole pages are filled. Of equal scores the later token goes
// first.
KeepMask keep_best(std::span<const float> scores, int32_t tokens, const Budget& budget,
                   const Competition& competition);
// Lists whole in this order as long as the budget has room, the last of them in part, its recent
// past first; of the others what is protected.
KeepMask keep_lists(std::span<const int32_t> order, int32_t tokens, const Budget& budget);
// The first tokens and as many of the last as the budget has room for.
KeepMask keep_recent(int32_t tokens, const Budget& budget, bool sinks);

}  // namespace coppice::eviction
