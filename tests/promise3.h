// What:    (tests) one take of a request held against another, row by row: promise 3's comparison,
//          and the prompts that it is made on.
// Owns:    nothing.
// Threads: one.
// Fails:   never.
#pragma once

#include <cstddef>
#include <vector>

#include "engine/test_harness.h"

namespace coppice::engine {

// Rows of one take against the same positions of another.
struct Diff {
  int compared = 0;
  int different = 0;
  Diff& operator+=(const Diff& more) {
    compared += more.compared;
    different += more.different;
    return *this;
  }
};

inline Diff compare(const Take& got, const Take& base) {
  Diff diff;
  for (const auto& [position, hash] : got.logits) {
    const auto at = base.logits.find(position);
    if (at == base.logits.end()) continue;
    ++diff.compared;
    diff.different += at->second != hash ? 1 : 0;
  }
  return diff;
}

// A row that came twice with other bits differs too.
inline Diff compare(Tape& got, const Take& base) {
  Diff diff = compare(got.take(), base);
  diff.different += got.unsteady_rows;
  return diff;
}

inline std::vector<TokenId> noise(uint32_t seed, size_t count) {
  return token_noise(seed, count, 3, 250);
}
inline std::vector<TokenId> first_of(const std::vector<TokenId>& tokens, size_t count) {
  return {tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace coppice::engine
