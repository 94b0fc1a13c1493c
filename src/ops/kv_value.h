// What:    the value that a page holds for a key's or value's element: always a finite one.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never.
//
// A row meets slots it does not see with weight 0, and 0 * inf would be NaN: whether it meets them
// depends on the rows beside it, which no result may.
#pragma once

#include <algorithm>
#include <limits>

#include "tensor/dtype.h"

namespace coppice::ops {

inline constexpr float kLargestBf16 = 0x1.fep127f;

// x, or the largest finite number of its sign where it is beyond; 0 for NaN.
inline float within(float x, float largest) {
  return x == x ? std::clamp(x, -largest, largest) : 0.0f;
}

inline void store_kv(float x, float* to) { *to = within(x, std::numeric_limits<float>::max()); }
inline void store_kv(float x, bf16* to) { *to = to_bf16(within(x, kLargestBf16)); }

}  // namespace coppice::ops
