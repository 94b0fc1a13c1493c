// What:    reads weight matrices as checkpoints store them: F32, F16, BF16 or Q8_0, row by row.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   check_weight_source: kUnsupported (type) or kInvalidArgument (shape), naming both.
#pragma once

#include "tensor/tensor.h"

namespace coppice::ops {

// True for what load_weight takes: two axes, a type below, whole blocks per row.
Status check_weight_source(const TensorView& w);
// out [K] = row `row` of w [N, K]. Every type above converts to f32 exactly, but Q8_0 rounds once.
void read_weight_row(const TensorView& w, int64_t row, float* out);
// The value a weight takes under a compute type of kBF16 (rounded) or kF32 (unchanged).
inline float round_to(DType compute, float x) {
  return compute == DType::kBF16 ? to_float(to_bf16(x)) : x;
}

}  // namespace coppice::ops
