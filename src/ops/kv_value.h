// What:    the value that a page holds for a key's or value's element: always a finite one.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never.
//
// A row meets slots it does not see with weight 0, and 0 * inf would be NaN: whether it meets them
// depends on the rows beside it, which no result may.
//
// int8: a slot's key [D] of one KV head is scale * q, q in -127 to 127, and so is its value. The
// scales are f32 and a slot's own: what is written beside it changes nothing of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "tensor/dtype.h"

namespace coppice::ops {

inline constexpr float kLargestBf16 = 0x1.fep127f;
inline constexpr float kLargestInt8 = 0x1.fcp127f;  // 127 * 2^121

// x, or the largest finite number of its sign where it is beyond; 0 for NaN.
inline float within(float x, float largest) {
  return x == x ? std::clamp(x, -largest, largest) : 0.0f;
}

inline void store_kv(float x, float* to) { *to = within(x, std::numeric_limits<float>::max()); }
inline void store_kv(float x, bf16* to) { *to = to_bf16(within(x, kLargestBf16)); }

// The scale of x [n] as int8: the largest magnitude becomes 127.
inline float int8_scale(const float* x, int32_t n) {
  float largest = 0.0f;
  for (int32_t i = 0; i < n; ++i) {
    largest = std::max(largest, std::abs(within(x[i], kLargestInt8)));
  }
  return largest / 127.0f;
}

// x / scale, rounded to nearest even; 0 where the scale is 0.
inline int8_t to_int8(float x, float scale) {
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: a sum with it holds no fraction
  if (scale == 0.0f) return 0;
  const float whole = (within(x, kLargestInt8) / scale + kRounder) - kRounder;
  return static_cast<int8_t>(std::clamp(whole, -127.0f, 127.0f));
}

}  // namespace coppice::ops
