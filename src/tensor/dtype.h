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

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kI32, kQ8_0, kQ4_0, kQ4_K, kQ5_K, kQ6_K };

struct bf16 {
  uint16_t bits = 0;
};
struct f16 {
  uint16_t bits = 0;
};
static_assert(sizeof(bf16) == 2 && sizeof(f16) == 2);

// Blocks as GGUF files store them (ggml's ggml-common.h); quant_block.h takes them apart.
// 32 signed bytes: value[i] = scale * quants[i].
struct BlockQ8_0 {
  f16 scale;
  int8_t quants[32];
};
// 32 nibbles, i and i + 16 in a byte: value[i] = scale * (nibble[i] - 8).
struct BlockQ4_0 {
  f16 scale;
  uint8_t nibbles[16];
};
// 256 values in eight groups: value[i] = scale * s * code[i] - min_scale * m, where a group's s and
// m, 6 bits each, are packed in `scales`.
struct BlockQ4_K {
  f16 scale, min_scale;
  uint8_t scales[12];
  uint8_t nibbles[128];
};
struct BlockQ5_K {
  f16 scale, min_scale;
  uint8_t scales[12];
  uint8_t fifth_bits[32];
  uint8_t nibbles[128];
};
// 256 values in sixteen groups: value[i] = scale * scales[i / 16] * (code[i] - 32).
struct BlockQ6_K {
  uint8_t nibbles[128];
  uint8_t upper_bits[64];
  int8_t scales[16];
  f16 scale;
};
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_K) == 144 &&
              sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);
static_assert(alignof(BlockQ8_0) == alignof(f16) && alignof(BlockQ4_0) == alignof(f16) &&
              alignof(BlockQ4_K) == alignof(f16) && alignof(BlockQ5_K) == alignof(f16) &&
              alignof(BlockQ6_K) == alignof(f16));

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
