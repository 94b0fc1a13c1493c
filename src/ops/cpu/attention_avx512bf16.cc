// The fold on AVX-512 with bf16 dot products: bf16 pages are multiplied as they lie, two slots or
// two elements of the head in one instruction. Highway 1.0.3 has no such product, hence intrinsics.
// What the file includes stays outside the target region: nothing else is compiled for this CPU.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>

#include <hwy/base.h>

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/attention_tiles.h"

// The compiler's own intrinsics start from vectors that they call undefined.
HWY_DIAGNOSTICS(push)
HWY_DIAGNOSTICS_OFF(disable : 4701, ignored "-Wuninitialized")
#if !HWY_COMPILER_CLANG
HWY_DIAGNOSTICS_OFF(disable : 4701, ignored "-Wmaybe-uninitialized")
#endif

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw,avx512bf16")
namespace coppice::ops::cpu {
namespace avx512bf16 {

struct DotOps {
  struct F16 {
    __m512 v;
  };
  struct Pair16 {
    __m512i v;
  };
  // 8 x 2 or 4 x 4 accumulators of 32 registers: 16 chains hide the latency, few loads a product.
  static constexpr int kRows = 8;
  static constexpr int columns(int rows) { return rows > 4 ? 2 : 4; }

  static COPPICE_INLINE F16 zero() { return {_mm512_setzero_ps()}; }
  static COPPICE_INLINE F16 set(float x) { return {_mm512_set1_ps(x)}; }
  static COPPICE_INLINE F16 load(const float* from) { return {_mm512_load_ps(from)}; }
  static COPPICE_INLINE void store(const F16& x, float* to) { _mm512_store_ps(to, x.v); }
  static COPPICE_INLINE F16 load_unaligned(const float* from) { return {_mm512_loadu_ps(from)}; }
  static COPPICE_INLINE void store_unaligned(const F16& x, float* to) { _mm512_storeu_ps(to, x.v); }
  static COPPICE_INLINE F16 add(const F16& a, const F16& b) { return {_mm512_add_ps(a.v, b.v)}; }
  static COPPICE_INLINE F16 sub(const F16& a, const F16& b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static COPPICE_INLINE F16 mul(const F16& a, const F16& b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static COPPICE_INLINE F16 max(const F16& a, const F16& b) { return {_mm512_max_ps(a.v, b.v)}; }
  static COPPICE_INLINE F16 fma(const F16& a, const F16& b, const F16& c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  static COPPICE_INLINE float first(const F16& a) { return _mm512_cvtss_f32(a.v); }
  static COPPICE_INLINE float reduce_max(const F16& a) { return _mm512_reduce_max_ps(a.v); }
  // Lanes [from, to) of a, -inf elsewhere.
  static COPPICE_INLINE F16 keep_lanes(const F16& a, int32_t from, int32_t to) {
    const auto keep = static_cast<__mmask16>(((1u << to) - 1) & ~((1u << from) - 1));
    return {_mm512_mask_mov_ps(_mm512_set1_ps(kLowest), keep, a.v)};
  }
  // As in attention_simd.cc.
  static COPPICE_INLINE F16 exp2(const F16& x) {
    const __m512 rounder = _mm512_set1_ps(kExp2Rounder);
    const __m512 shifted = _mm512_add_ps(x.v, rounder);
    const __m512 f = _mm512_sub_ps(x.v, _mm512_sub_ps(shifted, rounder));
    __m512 y = _mm512_set1_ps(kExp2Terms[4]);
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kExp2Terms[3]));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kExp2Terms[2]));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kExp2Terms[1]));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(kExp2Terms[0]));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
    const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    y = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), exponent));
    return {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(kExp2Lowest), _CMP_GE_OQ), y)};
  }
  static COPPICE_INLINE void prefetch(const void* at) { __builtin_prefetch(at, 0, 2); }

  static COPPICE_INLINE Pair16 load_pairs(const std::byte* at) { return {_mm512_load_si512(at)}; }
  // int8 as f32 leaves the lower half of every lane zero: the upper is the number as bf16.
  static COPPICE_INLINE Pair16 widen_pairs(const int8_t* at) {
    return {_mm512_or_si512(_mm512_srli_epi32(widen(at), 16), widen(at + 16))};
  }
  static COPPICE_INLINE Pair16 broadcast_pair(const uint16_t* at) {
    int32_t pair;
    std::memcpy(&pair, at, sizeof(pair));
    return {_mm512_set1_epi32(pair)};
  }
  static COPPICE_INLINE F16 dot(const Pair16& a, const Pair16& b, const F16& sum) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)a.v, (__m512bh)b.v)};
  }
  static COPPICE_INLINE F16 put_bf16(const F16& x, uint16_t* to) {
    const auto rounded = (__m256i)_mm512_cvtneps_pbh(x.v);
    _mm256_store_si256(reinterpret_cast<__m256i*>(to), rounded);
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16))};
  }

 private:
  static COPPICE_INLINE __m512i widen(const int8_t* at) {
    const __m128i narrow = _mm_load_si128(reinterpret_cast<const __m128i*>(at));
    return _mm512_castps_si512(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(narrow)));
  }
};

// clang-format off: the ceiling and the fold name what the pages define
#include "ops/cpu/attention_ceiling-inl.h"
#include "ops/cpu/attention_fold-inl.h"
#include "ops/cpu/attention_pages-inl.h"
// clang-format on

constexpr AttentionKernel kKernel{.name = "avx512bf16",
                                  .run_bf16 = run_item<DotOps, DotBf16<DotOps>>,
                                  .run_f32 = run_item<DotOps, F32Pages<DotOps>>,
                                  .run_int8 = run_item<DotOps, DotInt8<DotOps>>,
                                  .merge = merge_item<DotOps, F32Pages<DotOps>>,
                                  .burn_bf16 = burn_products<DotOps, DotBf16<DotOps>>,
                                  .burn_f32 = burn_products<DotOps, F32Pages<DotOps>>,
                                  .burn_exp = burn_exponentials<DotOps>,
                                  .rounds_q = true};

}  // namespace avx512bf16
}  // namespace coppice::ops::cpu
HWY_POP_ATTRIBUTES

namespace coppice::ops::cpu {

const AttentionKernel& avx512bf16_attention_kernel() { return avx512bf16::kKernel; }

}  // namespace coppice::ops::cpu
HWY_DIAGNOSTICS(pop)
