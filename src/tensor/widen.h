// What:    rows of matrices of any element type as floats.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; F32, F16, BF16 and the quantised types are CHECKs.
#pragma once

#include "tensor/tensor.h"

namespace coppice {

// out [K] = row `row` of w [N, K]. Every type converts to f32 exactly, but quantised ones round.
void widen_row(const TensorView& w, int64_t row, float* out);

}  // namespace coppice
