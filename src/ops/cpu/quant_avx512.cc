// Products with block-quantised weights on AVX-512 (as quant_avx2.cc, twice as wide). What the file
// includes stays outside the target region.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include <hwy/base.h>

#include "ops/cpu/quant_kernels.h"

// The compiler's own intrinsics start from vectors that they call undefined.
HWY_DIAGNOSTICS(push)
HWY_DIAGNOSTICS_OFF(disable : 4701, ignored "-Wuninitialized")
#if !HWY_COMPILER_CLANG
HWY_DIAGNOSTICS_OFF(disable : 4701, ignored "-Wmaybe-uninitialized")
#endif

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c,avx512f,avx512vl,avx512dq,avx512bw")
namespace coppice::ops::cpu {
namespace {

#define INLINE __attribute__((always_inline)) inline
#define INLINE_LAMBDA __attribute__((always_inline))

struct Ops {
  using Int = __m512i;
  using Float = __m512;
  static constexpr int kLanes = 16;

  static INLINE Int zero() { return _mm512_setzero_si512(); }
  static INLINE Int set32(int32_t x) { return _mm512_set1_epi32(x); }
  static INLINE Int broadcast(const void* from) {
    return _mm512_castps_si512(broadcast_float(from));
  }
  static INLINE Int load(const void* from) { return _mm512_loadu_si512(from); }
  static INLINE void store(Int x, void* to) { _mm512_store_si512(to, x); }
  static INLINE Int bit_and(Int a, Int b) { return _mm512_and_si512(a, b); }
  static INLINE Int bit_or(Int a, Int b) { return _mm512_or_si512(a, b); }
  template <int N>
  static INLINE Int left(Int a) {
    return _mm512_slli_epi32(a, N);
  }
  template <int N>
  static INLINE Int right(Int a) {
    return _mm512_srli_epi32(a, N);
  }
  // Sums are opaque: the compiler would make all products first, to add them in another order, and
  // would find no registers for them.
  static INLINE Int add16(Int a, Int b) {
    Int sum = _mm512_add_epi16(a, b);
    asm("" : "+v"(sum));
    return sum;
  }
  static INLINE Int add32(Int a, Int b) {
    Int sum = _mm512_add_epi32(a, b);
    asm("" : "+v"(sum));
    return sum;
  }
  static INLINE Int sub32(Int a, Int b) { return _mm512_sub_epi32(a, b); }
  static INLINE Int max32(Int a, Int b) { return _mm512_max_epi32(a, b); }
  // Unsigned times signed bytes, neighbours added in 16 bits.
  static INLINE Int multiply_pairs(Int u, Int s) { return _mm512_maddubs_epi16(u, s); }
  static INLINE Int dot16(Int a, Int b) { return _mm512_madd_epi16(a, b); }
  static INLINE Int magnitude(Int a) { return _mm512_abs_epi8(a); }
  static INLINE Int with_sign_of(Int a, Int sign) {
    return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(sign), zero(), a);
  }
  // 2 L bytes to 16 bits.
  template <bool Signed>
  static INLINE Int load_pairs(const std::byte* from) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return Signed ? _mm512_cvtepi8_epi16(bytes) : _mm512_cvtepu8_epi16(bytes);
  }
  static INLINE Int low_twice(Int a) {
    return _mm512_mask_blend_epi16(0x55555555, _mm512_slli_epi32(a, 16), a);
  }
  static INLINE Int high_twice(Int a) {
    return _mm512_mask_blend_epi16(0x55555555, a, _mm512_srli_epi32(a, 16));
  }

  // The sum of all lanes.
  static INLINE int32_t sum(Int a) { return _mm512_reduce_add_epi32(a); }
  // Lanes that fit in signed bytes.
  static INLINE void store_bytes(Int a, int8_t* to) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(a));
  }

  static INLINE Float broadcast_float(const void* from) {
    float x;
    std::memcpy(&x, from, sizeof(x));
    return _mm512_set1_ps(x);
  }
  static INLINE Float set(float x) { return _mm512_set1_ps(x); }
  static INLINE Float convert(Int a) { return _mm512_cvtepi32_ps(a); }
  static INLINE Int round(Float a) { return _mm512_cvtps_epi32(a); }
  static INLINE Float load_halves(const std::byte* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static INLINE Float load_floats(const float* from) { return _mm512_loadu_ps(from); }
  static INLINE void store_floats(Float a, float* to) { _mm512_storeu_ps(to, a); }
  static INLINE Float mul(Float a, Float b) { return _mm512_mul_ps(a, b); }
  static INLINE Float fma(Float a, Float b, Float c) { return _mm512_fmadd_ps(a, b, c); }
  static INLINE Float negative_fma(Float a, Float b, Float c) { return _mm512_fnmadd_ps(a, b, c); }
};

#include "ops/cpu/quant_product-inl.h"
#include "ops/cpu/quant_rows-inl.h"

#undef INLINE
#undef INLINE_LAMBDA

}  // namespace

const QuantKernels& quant_kernels_avx512() {
  static constexpr QuantKernels kTable{"avx512", kLanes, quantise_row, product};
  return kTable;
}

}  // namespace coppice::ops::cpu
HWY_POP_ATTRIBUTES
HWY_DIAGNOSTICS(pop)
