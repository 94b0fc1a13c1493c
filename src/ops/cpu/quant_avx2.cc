// Products with block-quantised weights on AVX2. Highway 1.0.3 has neither the byte products nor
// the sign transfer, hence intrinsics. What the file includes stays outside the target region.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include <hwy/base.h>

#include "ops/cpu/quant_kernels.h"

HWY_PUSH_ATTRIBUTES("avx2,fma,f16c")
namespace coppice::ops::cpu {
namespace {

#define INLINE __attribute__((always_inline)) inline
#define INLINE_LAMBDA __attribute__((always_inline))

struct Ops {
  using Int = __m256i;
  using Float = __m256;
  static constexpr int kLanes = 8;

  static INLINE Int zero() { return _mm256_setzero_si256(); }
  static INLINE Int set32(int32_t x) { return _mm256_set1_epi32(x); }
  static INLINE Int broadcast(const void* from) {
    int32_t word;
    std::memcpy(&word, from, sizeof(word));
    return _mm256_set1_epi32(word);
  }
  static INLINE Int load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static INLINE void store(Int x, void* to) { _mm256_store_si256(static_cast<__m256i*>(to), x); }
  static INLINE Int bit_and(Int a, Int b) { return _mm256_and_si256(a, b); }
  static INLINE Int bit_or(Int a, Int b) { return _mm256_or_si256(a, b); }
  template <int N>
  static INLINE Int left(Int a) {
    return _mm256_slli_epi32(a, N);
  }
  template <int N>
  static INLINE Int right(Int a) {
    return _mm256_srli_epi32(a, N);
  }
  // Sums are opaque: the compiler would make all products first, to add them in another order, and
  // would find no registers for them.
  static INLINE Int add16(Int a, Int b) {
    Int sum = _mm256_add_epi16(a, b);
    asm("" : "+x"(sum));
    return sum;
  }
  static INLINE Int add32(Int a, Int b) {
    Int sum = _mm256_add_epi32(a, b);
    asm("" : "+x"(sum));
    return sum;
  }
  static INLINE Int sub32(Int a, Int b) { return _mm256_sub_epi32(a, b); }
  static INLINE Int max32(Int a, Int b) { return _mm256_max_epi32(a, b); }
  // Unsigned times signed bytes, neighbours added in 16 bits.
  static INLINE Int multiply_pairs(Int u, Int s) { return _mm256_maddubs_epi16(u, s); }
  static INLINE Int dot16(Int a, Int b) { return _mm256_madd_epi16(a, b); }
  static INLINE Int magnitude(Int a) { return _mm256_abs_epi8(a); }
  static INLINE Int with_sign_of(Int a, Int sign) { return _mm256_sign_epi8(a, sign); }
  // 2 L bytes to 16 bits.
  template <bool Signed>
  static INLINE Int load_pairs(const std::byte* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return Signed ? _mm256_cvtepi8_epi16(bytes) : _mm256_cvtepu8_epi16(bytes);
  }
  static INLINE Int low_twice(Int a) {
    return _mm256_blend_epi16(_mm256_slli_epi32(a, 16), a, 0x55);
  }
  static INLINE Int high_twice(Int a) {
    return _mm256_blend_epi16(a, _mm256_srli_epi32(a, 16), 0x55);
  }

  // The sum of all lanes.
  static INLINE int32_t sum(Int a) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
  }
  // Lanes that fit in signed bytes.
  static INLINE void store_bytes(Int a, int8_t* to) {
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(words, words));
  }

  static INLINE Float broadcast_float(const void* from) {
    return _mm256_broadcast_ss(static_cast<const float*>(from));
  }
  static INLINE Float set(float x) { return _mm256_set1_ps(x); }
  static INLINE Float convert(Int a) { return _mm256_cvtepi32_ps(a); }
  static INLINE Int round(Float a) { return _mm256_cvtps_epi32(a); }
  static INLINE Float load_halves(const std::byte* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static INLINE Float load_floats(const float* from) { return _mm256_loadu_ps(from); }
  static INLINE void store_floats(Float a, float* to) { _mm256_storeu_ps(to, a); }
  static INLINE Float mul(Float a, Float b) { return _mm256_mul_ps(a, b); }
  static INLINE Float fma(Float a, Float b, Float c) { return _mm256_fmadd_ps(a, b, c); }
  static INLINE Float negative_fma(Float a, Float b, Float c) { return _mm256_fnmadd_ps(a, b, c); }
};

#include "ops/cpu/quant_product-inl.h"
#include "ops/cpu/quant_rows-inl.h"

#undef INLINE
#undef INLINE_LAMBDA

}  // namespace

const QuantKernels& quant_kernels_avx2() {
  static constexpr QuantKernels kTable{"avx2", kLanes, quantise_row, product};
  return kTable;
}

}  // namespace coppice::ops::cpu
HWY_POP_ATTRIBUTES
