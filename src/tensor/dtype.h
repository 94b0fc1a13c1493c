// What:    element types and the conversions between 16-bit floats and float.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; conversions round to nearest even and keep NaN and infinity.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <string_view>

namespace coppice {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kI32, kQ8_0 };

struct bf16 {
  uint16_t bits = 0;
};
struct f16 {
  uint16_t bits = 0;
};
static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2);

// 32 signed bytes and one scale: GGUF's Q8_0. value[i] = scale * quants[i].
struct BlockQ8_0 {
  f16 scale;
  int8_t quants[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// Elements per stored block (1 for plain types) and bytes per block.
int dtype_block(DType type);
int dtype_block_bytes(DType type);
// Bytes of `elements` values; elements must be a multiple of the block.
int64_t dtype_bytes(DType type, int64_t elements);
std::string_view dtype_name(DType type);                      // "f32", "bf16", "q8_0", ...
std::optional<DType> dtype_from_name(std::string_view name);  // the inverse

inline float to_float(bf16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }
inline bf16 to_bf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
float to_float(f16 x);
f16 to_f16(float x);

}  // namespace coppice
