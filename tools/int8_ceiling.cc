#include "int8_ceiling.h"

#include <immintrin.h>

#include <numeric>

namespace coppice::tools {
namespace {

constexpr int kSums = 12;  // latency times units, and registers to spare

// Every loop over the sums is unrolled: an array that is indexed anywhere stays in memory.
#define COPPICE_UNROLL_SUMS _Pragma("GCC unroll 12")

// The operands are opaque in every step: the compiler must not multiply once for all of them.
#define COPPICE_OPAQUE(x, kind) asm volatile("" : "+" kind(x))

__attribute__((target("avx2"))) double burn_avx2(int64_t steps, float* sink) {
  __m256i sums[kSums], u = _mm256_set1_epi8(3), s = _mm256_set1_epi8(1);
  COPPICE_UNROLL_SUMS
  for (int i = 0; i < kSums; ++i) sums[i] = _mm256_set1_epi16(static_cast<int16_t>(i));
  for (int64_t step = 0; step < steps; ++step) {
    COPPICE_UNROLL_SUMS
    for (int i = 0; i < kSums; ++i) {
      COPPICE_OPAQUE(u, "x");
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(u, s));
      COPPICE_OPAQUE(sums[i], "x");
    }
  }
  alignas(32) int16_t words[kSums * 16];
  COPPICE_UNROLL_SUMS
  for (int i = 0; i < kSums; ++i) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(words + 16 * i), sums[i]);
  }
  *sink += static_cast<float>(std::accumulate(words, words + kSums * 16, 0));
  return static_cast<double>(steps) * kSums * 32 * 2;
}

__attribute__((target("avx512f,avx512bw"))) double burn_avx512(int64_t steps, float* sink) {
  __m512i sums[kSums], u = _mm512_set1_epi8(3), s = _mm512_set1_epi8(1);
  COPPICE_UNROLL_SUMS
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_epi16(static_cast<int16_t>(i));
  for (int64_t step = 0; step < steps; ++step) {
    COPPICE_UNROLL_SUMS
    for (int i = 0; i < kSums; ++i) {
      COPPICE_OPAQUE(u, "v");
      sums[i] = _mm512_add_epi16(sums[i], _mm512_maddubs_epi16(u, s));
      COPPICE_OPAQUE(sums[i], "v");
    }
  }
  alignas(64) int16_t words[kSums * 32];
  COPPICE_UNROLL_SUMS
  for (int i = 0; i < kSums; ++i) _mm512_store_si512(words + 32 * i, sums[i]);
  *sink += static_cast<float>(std::accumulate(words, words + kSums * 32, 0));
  return static_cast<double>(steps) * kSums * 64 * 2;
}

__attribute__((target("avx512f,avx512vnni"))) double burn_vnni(int64_t steps, float* sink) {
  __m512i sums[kSums], u = _mm512_set1_epi32(0x03030303), s = _mm512_set1_epi32(0x01010101);
  COPPICE_UNROLL_SUMS
  for (int i = 0; i < kSums; ++i) sums[i] = _mm512_set1_epi32(i);
  for (int64_t step = 0; step < steps; ++step) {
    COPPICE_UNROLL_SUMS
    for (int i = 0; i < kSums; ++i) {
      COPPICE_OPAQUE(u, "v");
      sums[i] = _mm512_dpbusd_epi32(sums[i], u, s);
      COPPICE_OPAQUE(sums[i], "v");
    }
  }
  alignas(64) int32_t words[kSums * 16];
  COPPICE_UNROLL_SUMS
  for (int i = 0; i < kSums; ++i) _mm512_store_si512(words + 16 * i, sums[i]);
  *sink += static_cast<float>(std::accumulate(words, words + kSums * 16, int64_t{0}));
  return static_cast<double>(steps) * kSums * 64 * 2;
}

#undef COPPICE_OPAQUE
#undef COPPICE_UNROLL_SUMS

}  // namespace

double burn_int8(ops::cpu::Isa isa, int64_t steps, float* sink) {
  if (isa == ops::cpu::Isa::kAvx2) return burn_avx2(steps, sink);
  return __builtin_cpu_supports("avx512vnni") ? burn_vnni(steps, sink) : burn_avx512(steps, sink);
}

}  // namespace coppice::tools
