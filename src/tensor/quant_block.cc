#include "tensor/quant_block.h"

#include <cstddef>
#include <cstring>

#include "base/check.h"

namespace coppice {
namespace {

template <class Block>
Block read(const std::byte* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof(block));
  return block;
}

// Eight scales and eight minima of 6 bits in 12 bytes: the first four lie in the low bits of bytes
// 0-3 and 4-7; the last four have their low nibbles in bytes 8-11, their upper bits above the
// first.
void unpack_scales(const uint8_t* packed, QuantBlock& out) {
  for (size_t g = 0; g < 4; ++g) {
    out.scales[g] = packed[g] & 63;
    out.mins[g] = packed[g + 4] & 63;
    out.scales[g + 4] = static_cast<int16_t>((packed[g + 8] & 15) | (packed[g] >> 6) << 4);
    out.mins[g + 4] = static_cast<int16_t>((packed[g + 8] >> 4) | (packed[g + 4] >> 6) << 4);
  }
}

// Runs of 64 values lie in 32 bytes: the first half in the low nibbles, the second in the high
// ones.
void unpack_nibbles_by_64(const uint8_t* nibbles, QuantBlock& out) {
  for (size_t i = 0; i < 256; ++i) {
    const uint8_t byte = nibbles[i / 64 * 32 + i % 32];
    out.codes[i] = i % 64 < 32 ? byte & 15 : byte >> 4;
  }
}

QuantBlock read_q8_0(const std::byte* bytes) {
  const auto block = read<BlockQ8_0>(bytes);
  QuantBlock out;
  out.scale = to_float(block.scale);
  for (size_t i = 0; i < 32; ++i) out.codes[i] = block.quants[i];
  out.scales[0] = 1;
  return out;
}

QuantBlock read_q4_0(const std::byte* bytes) {
  const auto block = read<BlockQ4_0>(bytes);
  QuantBlock out;
  out.scale = to_float(block.scale);
  for (size_t i = 0; i < 16; ++i) {
    out.codes[i] = block.nibbles[i] & 15;
    out.codes[i + 16] = block.nibbles[i] >> 4;
  }
  out.scales[0] = 1;
  return out;
}

QuantBlock read_q4_k(const std::byte* bytes) {
  const auto block = read<BlockQ4_K>(bytes);
  QuantBlock out;
  out.scale = to_float(block.scale);
  out.min_scale = to_float(block.min_scale);
  unpack_scales(block.scales, out);
  unpack_nibbles_by_64(block.nibbles, out);
  return out;
}

QuantBlock read_q5_k(const std::byte* bytes) {
  const auto block = read<BlockQ5_K>(bytes);
  QuantBlock out;
  out.scale = to_float(block.scale);
  out.min_scale = to_float(block.min_scale);
  unpack_scales(block.scales, out);
  unpack_nibbles_by_64(block.nibbles, out);
  for (size_t i = 0; i < 256; ++i) {
    out.codes[i] =
        static_cast<int16_t>(out.codes[i] | (block.fifth_bits[i % 32] >> i / 32 & 1) << 4);
  }
  return out;
}

// Runs of 128 values: quarter q has its nibbles in byte half q % 2, low for q < 2, and its upper
// bits at 2 q of 32 bytes.
QuantBlock read_q6_k(const std::byte* bytes) {
  const auto block = read<BlockQ6_K>(bytes);
  QuantBlock out;
  out.scale = to_float(block.scale);
  for (size_t i = 0; i < 256; ++i) {
    const size_t run = i / 128, quarter = i % 128 / 32, l = i % 32;
    const uint8_t byte = block.nibbles[run * 64 + quarter % 2 * 32 + l];
    const int low = quarter < 2 ? byte & 15 : byte >> 4;
    const int high = block.upper_bits[run * 32 + l] >> 2 * quarter & 3;
    out.codes[i] = static_cast<int16_t>(low | high << 4);
  }
  for (size_t g = 0; g < 16; ++g) out.scales[g] = block.scales[g];
  return out;
}

}  // namespace

bool is_quantised(DType type) { return dtype_block(type) > 1; }

QuantFormat quant_format(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return {32, 32, 8, 0, false};
    case DType::kQ4_0:
      return {32, 32, 4, 8, false};
    case DType::kQ4_K:
      return {256, 32, 4, 0, true};
    case DType::kQ5_K:
      return {256, 32, 5, 0, true};
    case DType::kQ6_K:
      return {256, 16, 6, 32, false};
    default:
      CHECK(false && "not a quantised type");
      return {};
  }
}

QuantBlock read_quant_block(DType type, const std::byte* bytes) {
  switch (type) {
    case DType::kQ8_0:
      return read_q8_0(bytes);
    case DType::kQ4_0:
      return read_q4_0(bytes);
    case DType::kQ4_K:
      return read_q4_k(bytes);
    case DType::kQ5_K:
      return read_q5_k(bytes);
    default:
      CHECK(type == DType::kQ6_K);
      return read_q6_k(bytes);
  }
}

void dequantise(DType type, const QuantBlock& block, float* out) {
  const QuantFormat format = quant_format(type);
  for (int i = 0; i < format.block; ++i) {
    const auto g = static_cast<size_t>(i / format.group);
    const float scale = block.scale * static_cast<float>(block.scales[g]);
    const int code = block.codes[static_cast<size_t>(i)] - format.offset;
    const float value = scale * static_cast<float>(code);
    out[i] = format.mins ? value - block.min_scale * static_cast<float>(block.mins[g]) : value;
  }
}

}  // namespace coppice
