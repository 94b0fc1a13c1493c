// What:    the dense inner loops of one instruction set, as a table of functions.
// Owns:    nothing; the tables are constants.
// Threads: pure functions.
// Fails:   never.
//
// Weights lie in panels of W = panel columns, W = 4 vectors:  [ceil(N / W)][K][W], zeros beyond N.
//   f32:   column c of a panel at depth k is element k * W + c.
//   bf16:  two columns, one vector apart, share a 32-bit word, so that a shift and a mask widen a
//          vector of words to two vectors of f32 (panel_offset below).
// Arithmetic: out[t, n] starts at 0 and takes fma(x[t, k], w[n, k], .) for k = 0, 1, ..., K - 1,
// then
// + bias[n], whatever the tile, the row count or the instruction set. bf16 weights are widened,
// activations stay f32.
#pragma once

#include <cstdint>
#include <string_view>

#include "ops/cpu/isa.h"
#include "tensor/dtype.h"

namespace coppice::ops::cpu {

// Rows [0, rows) of x times columns [0, columns) of a run of panels.
struct ProductBlock {
  const float* x = nullptr;  // [rows, K], dense
  int64_t rows = 0;
  int64_t depth = 0;              // K
  const void* weights = nullptr;  // the run's first panel
  int64_t columns = 0;            // the last panel may be partly used
  const float* bias = nullptr;    // [columns] or null
  float* out = nullptr;           // [rows, columns], rows out_stride apart
  int64_t out_stride = 0;
};

struct DenseKernels {
  std::string_view name;
  int32_t panel;  // W
  void (*product_f32)(const ProductBlock& block);
  void (*product_bf16)(const ProductBlock& block);
  // One row of width n, in place allowed.
  void (*rms_norm)(const float* x, const float* weight, float eps, int64_t n, float* out);
  void (*add)(float* x, const float* y, int64_t n);
  void (*swiglu)(const float* gate, const float* up, int64_t n, float* out);
  // One head of 2 * half values, in place.
  void (*rope)(float* x, const float* cos, const float* sin, int64_t half);
};

// The table for an instruction set this build has (kAvx512Bf16 shares kAvx512's).
const DenseKernels& dense_kernels(Isa isa);

// Where column c of a panel at depth k lies, in elements of `type` (kF32 or kBF16).
inline int64_t panel_offset(DType type, int64_t panel, int64_t k, int64_t c) {
  if (type == DType::kF32) return k * panel + c;
  const int64_t lanes = panel / 4;
  const int64_t half = c / (2 * lanes), lane = c % lanes, upper = c / lanes % 2;
  return k * panel + half * 2 * lanes + lane * 2 + upper;
}

}  // namespace coppice::ops::cpu
