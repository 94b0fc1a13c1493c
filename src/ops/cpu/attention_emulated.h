// What:    the 16-lane operations of a bf16-dot CPU in plain C++, so that the kernel for it (its
//          index arithmetic and its fold) runs and is judged on any machine.
// Owns:    nothing.
// Threads: any.
// Fails:   never. Slow: for tests.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/attention_tiles.h"
#include "tensor/dtype.h"

namespace coppice::ops::cpu::emulated {

struct EmulatedOps {
  struct F16 {
    float v[16];
  };
  struct Pair16 {
    uint32_t v[16];
  };
  static constexpr int kRows = 8;
  static constexpr int columns(int rows) { return rows > 4 ? 2 : 4; }

  template <class Fn>
  static F16 each(const Fn& fn) {
    F16 out;
    for (int i = 0; i < 16; ++i) out.v[i] = fn(i);
    return out;
  }
  static F16 zero() { return set(0.0f); }
  static F16 set(float x) {
    return each([&](int) { return x; });
  }
  static F16 load(const float* from) {
    return each([&](int i) { return from[i]; });
  }
  static void store(const F16& x, float* to) { std::copy_n(x.v, 16, to); }
  static F16 load_unaligned(const float* from) { return load(from); }
  static void store_unaligned(const F16& x, float* to) { store(x, to); }
  static F16 add(const F16& a, const F16& b) {
    return each([&](int i) { return a.v[i] + b.v[i]; });
  }
  static F16 sub(const F16& a, const F16& b) {
    return each([&](int i) { return a.v[i] - b.v[i]; });
  }
  static F16 mul(const F16& a, const F16& b) {
    return each([&](int i) { return a.v[i] * b.v[i]; });
  }
  static F16 max(const F16& a, const F16& b) {
    return each([&](int i) { return std::max(a.v[i], b.v[i]); });
  }
  static F16 fma(const F16& a, const F16& b, const F16& c) {
    return each([&](int i) { return std::fma(a.v[i], b.v[i], c.v[i]); });
  }
  static float first(const F16& a) { return a.v[0]; }
  static float reduce_max(const F16& a) { return *std::max_element(a.v, a.v + 16); }
  static F16 keep_lanes(const F16& a, int32_t from, int32_t to) {
    return each([&](int i) { return i >= from && i < to ? a.v[i] : kLowest; });
  }
  static F16 exp2(const F16& x) {
    return each([&](int i) { return exp2(x.v[i]); });
  }
  static void prefetch(const void*) {}

  static Pair16 load_pairs(const std::byte* at) {
    Pair16 out;
    std::memcpy(out.v, at, sizeof(out.v));
    return out;
  }
  static Pair16 widen_pairs(const int8_t* at) {
    Pair16 out;
    for (int i = 0; i < 16; ++i) {
      out.v[i] = uint32_t{to_bf16(at[i]).bits} | uint32_t{to_bf16(at[16 + i]).bits} << 16;
    }
    return out;
  }
  static Pair16 broadcast_pair(const uint16_t* at) {
    Pair16 out;
    std::fill(out.v, out.v + 16, uint32_t{at[0]} | uint32_t{at[1]} << 16);
    return out;
  }
  // The high element first, each product added with one rounding.
  static F16 dot(const Pair16& a, const Pair16& b, const F16& sum) {
    return each([&](int i) {
      const float high = std::fma(high_half(a.v[i]), high_half(b.v[i]), sum.v[i]);
      return std::fma(low_half(a.v[i]), low_half(b.v[i]), high);
    });
  }
  static F16 put_bf16(const F16& x, uint16_t* to) {
    return each([&](int i) {
      to[i] = to_bf16(x.v[i]).bits;
      return to_float(bf16{to[i]});
    });
  }

 private:
  static float low_half(uint32_t pair) { return std::bit_cast<float>(pair << 16); }
  static float high_half(uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); }
  static float exp2(float x) {
    if (!(x >= kExp2Lowest)) return 0.0f;
    const float shifted = x + kExp2Rounder;
    const float f = x - (shifted - kExp2Rounder);
    float y = kExp2Terms[4];
    for (int i = 3; i >= 0; --i) y = std::fma(y, f, kExp2Terms[i]);
    y = std::fma(y, f, 1.0f);
    return std::bit_cast<float>(std::bit_cast<uint32_t>(y) +
                                (std::bit_cast<uint32_t>(shifted) << 23));
  }
};

// clang-format off: the fold names what the pages define
#include "ops/cpu/attention_fold-inl.h"
#include "ops/cpu/attention_pages-inl.h"
// clang-format on

}  // namespace coppice::ops::cpu::emulated
