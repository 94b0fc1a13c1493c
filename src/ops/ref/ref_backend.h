// What:    the reference backend: plain loops, double accumulators, the definition of right.
// Owns:    nothing.
// Threads: one.
// Fails:   as backend.h says.
#pragma once

#include <memory>

#include "ops/backend.h"

namespace coppice::ops {

// weights: kBF16 rounds every weight to bf16 at load, kF32 keeps it as the file has it.
std::unique_ptr<Backend> make_ref_backend(DType weights);

}  // namespace coppice::ops
