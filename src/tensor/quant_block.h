// What:    block-quantised values taken apart: codes, scales and minima of one block of any type.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   never; the type must be one of is_quantised().
//
// Source: ggml's block formats (ggml-common.h, dequantize_row_* in ggml-quants.c).
#pragma once

#include <array>
#include <cstdint>

#include "tensor/dtype.h"

namespace coppice {

inline constexpr int kMaxQuantBlock = 256;

// value[i] = scale * scales[g] * (codes[i] - offset) - min_scale * mins[g], g = i / group.
struct QuantFormat {
  int block;   // values in a block
  int group;   // values that share scales[g]
  int bits;    // of a code; 8: signed bytes
  int offset;  // the code of zero
  bool mins;   // groups have minima
};

struct QuantBlock {
  float scale = 0, min_scale = 0;
  std::array<int16_t, kMaxQuantBlock> codes;  // [block]
  std::array<int16_t, 16> scales;             // [block / group]
  std::array<int16_t, 16> mins;               // [block / group], 0 without minima
};

bool is_quantised(DType type);
QuantFormat quant_format(DType type);
// The block at `bytes`.
QuantBlock read_quant_block(DType type, const std::byte* bytes);
// out [block], rounded in the order of the formula.
void dequantise(DType type, const QuantBlock& block, float* out);

}  // namespace coppice
