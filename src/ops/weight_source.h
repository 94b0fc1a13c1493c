// What:    weight matrices as checkpoints store them: F32, F16, BF16 or a quantised type.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   check_weight_source: kUnsupported (type) or kInvalidArgument (shape), naming both.
#pragma once

#include "tensor/tensor.h"
#include "tensor/widen.h"

namespace coppice::ops {

// Whether load_weight takes it: two axes, a type above, whole blocks per row.
Status check_weight_source(const TensorView& w);
// The value a weight takes under a compute type of kBF16 (rounded) or kF32 (unchanged).
inline float round_to(DType compute, float x) {
  return compute == DType::kBF16 ? to_float(to_bf16(x)) : x;
}

}  // namespace coppice::ops
