#include "read_ceiling.h"

#include <immintrin.h>

#include "base/check.h"

namespace coppice::tools {
namespace {

constexpr int64_t kStep = 128;  // two lines
constexpr int64_t kAhead = 2048;

__attribute__((target("avx2"))) inline __m256i load(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

// kStreams stretches of [0, bytes) side by side.
template <int kStreams, bool kFetched>
__attribute__((target("avx2"))) uint64_t read_streams(const std::byte* from, int64_t bytes) {
  __m256i sums[4] = {};
  const int64_t stretch = bytes / kStreams;
  for (int64_t i = 0; i < stretch; i += kStep) {
    for (int stream = 0; stream < kStreams; ++stream) {
      const std::byte* at = from + stream * stretch + i;
      if (kFetched) __builtin_prefetch(at + kAhead);
      if (kFetched) __builtin_prefetch(at + kAhead + 64);
      for (int v = 0; v < 4; ++v) sums[v] = _mm256_xor_si256(sums[v], load(at + 32 * v));
    }
  }
  const __m256i both =
      _mm256_xor_si256(_mm256_xor_si256(sums[0], sums[1]), _mm256_xor_si256(sums[2], sums[3]));
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), both);
  return words[0] ^ words[1] ^ words[2] ^ words[3];
}

}  // namespace

uint64_t read_all(int way, const std::byte* from, int64_t bytes) {
  CHECK(bytes % (2 * kStep) == 0);
  constexpr uint64_t (*kWays[kReadWays])(const std::byte*, int64_t) = {
      read_streams<1, false>, read_streams<2, false>, read_streams<1, true>};
  return kWays[way](from, bytes);
}

}  // namespace coppice::tools
