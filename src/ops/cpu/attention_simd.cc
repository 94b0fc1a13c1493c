// The fold on Highway: pages widen to f32 in registers, products are f32 FMA. Compiled for AVX2 and
// AVX-512; the same bits from both, as every slot and every element of the output is one chain.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include "ops/cpu/attention.h"
#include "ops/cpu/attention_tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/attention_simd.cc"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4)
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/cache_control.h>
#include <hwy/highway.h>

#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3

HWY_BEFORE_NAMESPACE();
namespace coppice::ops::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct SimdOps {
  using Tag = hn::CappedTag<float, 16>;
  using Bits = hn::RebindToUnsigned<Tag>;
  static constexpr int kLanes = HWY_LANES(float) < 16 ? HWY_LANES(float) : 16;
  static constexpr int kVectors = 16 / kLanes;
  struct F16 {
    hn::Vec<Tag> v[kVectors];
  };

  // With 16 registers: 5 x 2 accumulators leave room for two vectors, their widened halves, a
  // broadcast and a mask; 6 x 2 and 3 x 4 spill (measured slower). Eight chains hide the latency.
  static constexpr int kRows = kVectors == 1 ? 8 : 5;
  static constexpr int columns(int rows) {
    if (kVectors == 1) return rows > 4 ? 2 : 4;
    return rows == 1 ? 4 : rows == 2 ? 2 : 1;
  }

  static HWY_INLINE F16 zero() {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Zero(Tag());
    return out;
  }
  static HWY_INLINE F16 set(float x) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Set(Tag(), x);
    return out;
  }
  static HWY_INLINE F16 load(const float* from) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Load(Tag(), from + i * kLanes);
    return out;
  }
  static HWY_INLINE void store(const F16& x, float* to) {
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) hn::Store(x.v[i], Tag(), to + i * kLanes);
  }
  static HWY_INLINE F16 load_unaligned(const float* from) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::LoadU(Tag(), from + i * kLanes);
    return out;
  }
  static HWY_INLINE void store_unaligned(const F16& x, float* to) {
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) hn::StoreU(x.v[i], Tag(), to + i * kLanes);
  }
  static HWY_INLINE F16 add(const F16& a, const F16& b) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Add(a.v[i], b.v[i]);
    return out;
  }
  static HWY_INLINE F16 sub(const F16& a, const F16& b) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Sub(a.v[i], b.v[i]);
    return out;
  }
  static HWY_INLINE F16 mul(const F16& a, const F16& b) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Mul(a.v[i], b.v[i]);
    return out;
  }
  static HWY_INLINE F16 max(const F16& a, const F16& b) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::Max(a.v[i], b.v[i]);
    return out;
  }
  static HWY_INLINE F16 fma(const F16& a, const F16& b, const F16& c) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = hn::MulAdd(a.v[i], b.v[i], c.v[i]);
    return out;
  }
  static HWY_INLINE float first(const F16& a) { return hn::GetLane(a.v[0]); }
  static HWY_INLINE float reduce_max(const F16& a) {
    hn::Vec<Tag> top = a.v[0];
    COPPICE_UNROLL
    for (int i = 1; i < kVectors; ++i) top = hn::Max(top, a.v[i]);
    return hn::GetLane(hn::MaxOfLanes(Tag(), top));
  }
  // Lanes [first, last) of a, -inf elsewhere.
  static HWY_INLINE F16 keep_lanes(const F16& a, int32_t first, int32_t last) {
    F16 out;
    const auto lowest = hn::Set(Tag(), kLowest);
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const auto lane = hn::Iota(Tag(), static_cast<float>(i * kLanes));
      const auto keep = hn::And(hn::Ge(lane, hn::Set(Tag(), static_cast<float>(first))),
                                hn::Lt(lane, hn::Set(Tag(), static_cast<float>(last))));
      out.v[i] = hn::IfThenElse(keep, a.v[i], lowest);
    }
    return out;
  }
  // 2^x for x <= 127, relative error 1e-7; +0 for x < -125, -inf and NaN.
  static HWY_INLINE F16 exp2(const F16& x) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < kVectors; ++i) out.v[i] = exp2(x.v[i]);
    return out;
  }
  static HWY_INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 2); }

 private:
  static HWY_INLINE hn::Vec<Tag> exp2(hn::Vec<Tag> x) {
    const Tag d;
    const Bits bits;
    // Adding 1.5 * 2^23 leaves round(x) in the low bits, where a shift makes it an exponent.
    const auto rounder = hn::Set(d, kExp2Rounder);
    const auto shifted = hn::Add(x, rounder);
    const auto f = hn::Sub(x, hn::Sub(shifted, rounder));
    auto y = hn::MulAdd(hn::Set(d, kExp2Terms[4]), f, hn::Set(d, kExp2Terms[3]));
    y = hn::MulAdd(y, f, hn::Set(d, kExp2Terms[2]));
    y = hn::MulAdd(y, f, hn::Set(d, kExp2Terms[1]));
    y = hn::MulAdd(y, f, hn::Set(d, kExp2Terms[0]));
    y = hn::MulAdd(y, f, hn::Set(d, 1.0f));
    const auto exponent = hn::ShiftLeft<23>(hn::BitCast(bits, shifted));
    y = hn::BitCast(d, hn::Add(hn::BitCast(bits, y), exponent));
    return hn::IfThenElseZero(hn::Ge(x, hn::Set(d, kExp2Lowest)), y);
  }
};

// [..][2] pairs of bf16 in 32-bit lanes: term 0 is the low half, term 1 the high half.
struct WidenedBf16 {
  using Element = float;
  using Stored = uint16_t;
  static constexpr int kRows = SimdOps::kRows;
  using F16 = SimdOps::F16;
  using Right = F16;
  static constexpr int kPerStep = 2;
  static constexpr int kTerms = 2;
  static constexpr int64_t kColumn = 16 * sizeof(Stored) * kPerStep;
  static constexpr int64_t value_step(int64_t dim) {
    return dim * int64_t{sizeof(Stored)} * kPerStep;
  }
  static constexpr bool kScaledQ = true;
  static constexpr bool kSlotScales = false;

  template <int kTerm>
  static HWY_INLINE F16 right(const std::byte* at) {
    const SimdOps::Tag d;
    const SimdOps::Bits bits;
    const auto* pairs = reinterpret_cast<const uint32_t*>(at);
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < SimdOps::kVectors; ++i) {
      const auto pair = hn::Load(bits, pairs + i * SimdOps::kLanes);
      if constexpr (kTerm == 0) {
        out.v[i] = hn::BitCast(d, hn::ShiftLeft<16>(pair));
      } else {
        out.v[i] = hn::BitCast(d, hn::And(pair, hn::Set(bits, 0xffff0000u)));
      }
    }
    return out;
  }
  template <int kTerm>
  static HWY_INLINE hn::Vec<SimdOps::Tag> left(const float* at) {
    return hn::Set(SimdOps::Tag(), at[kTerm]);
  }
  static HWY_INLINE F16 product(hn::Vec<SimdOps::Tag> a, const F16& b, const F16& sum) {
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < SimdOps::kVectors; ++i) out.v[i] = hn::MulAdd(a, b.v[i], sum.v[i]);
    return out;
  }
  static HWY_INLINE F16 put(const F16& x, float* to) {
    SimdOps::store(x, to);
    return x;
  }
};

// 16 int8 of each of the four elements of the sum that share a line.
struct WidenedInt8 : WidenedBf16 {
  using Stored = int8_t;
  // Four terms of one vector each and no mask: 6 x 2 accumulators fit 16 registers.
  static constexpr int kRows = SimdOps::kVectors == 1 ? SimdOps::kRows : 6;
  static constexpr int kPerStep = 4;
  static constexpr int kTerms = 4;
  static constexpr int64_t kColumn = 16 * 16;
  static constexpr int64_t value_step(int64_t) { return 16 * kPerStep; }
  static constexpr bool kSlotScales = true;

  template <int kTerm>
  static HWY_INLINE F16 right(const std::byte* at) {
    const hn::Rebind<int8_t, SimdOps::Tag> narrow;
    const hn::Rebind<int32_t, SimdOps::Tag> wide;
    const auto* from = reinterpret_cast<const int8_t*>(at) + 16 * kTerm;
    F16 out;
    COPPICE_UNROLL
    for (int i = 0; i < SimdOps::kVectors; ++i) {
      const auto whole = hn::PromoteTo(wide, hn::Load(narrow, from + i * SimdOps::kLanes));
      out.v[i] = hn::ConvertTo(SimdOps::Tag(), whole);
    }
    return out;
  }
};

// clang-format off: the ceiling and the fold name what the pages define
#include "ops/cpu/attention_ceiling-inl.h"
#include "ops/cpu/attention_fold-inl.h"
#include "ops/cpu/attention_pages-inl.h"
// clang-format on

constexpr AttentionKernel kKernel{.name = HWY_TARGET == HWY_AVX2 ? "avx2" : "avx512",
                                  .run_bf16 = run_item<SimdOps, WidenedBf16>,
                                  .run_f32 = run_item<SimdOps, F32Pages<SimdOps>>,
                                  .run_int8 = run_item<SimdOps, WidenedInt8>,
                                  .merge = merge_item<SimdOps, F32Pages<SimdOps>>,
                                  .burn_bf16 = burn_products<SimdOps, WidenedBf16>,
                                  .burn_f32 = burn_products<SimdOps, F32Pages<SimdOps>>,
                                  .burn_exp = burn_exponentials<SimdOps>};

}  // namespace HWY_NAMESPACE
}  // namespace coppice::ops::cpu
HWY_AFTER_NAMESPACE();

#endif  // a target with FMA

#if HWY_ONCE
namespace coppice::ops::cpu {

const AttentionKernel& attention_kernel(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return avx512bf16_attention_kernel();
    case Isa::kAvx512:
      return N_AVX3::kKernel;
    case Isa::kAvx2:
      break;
  }
  return N_AVX2::kKernel;
}

}  // namespace coppice::ops::cpu
#endif  // HWY_ONCE
