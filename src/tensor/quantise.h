// What:    values to block-quantised bytes: Q8_0 and Q4_0 as ggml's reference quantises them; Q4_K,
//          Q5_K and Q6_K by a search for the scale (and minimum) of least squared error in every
//          group.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; the type must be one of is_quantised().
//
// Source: quantize_row_q8_0_ref, quantize_row_q4_0_ref and the ideas of make_qkx2_quants and
// make_qx_quants in ggml.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace coppice {

// x [count], whole blocks; values that are not finite count as 0, those too large for a 16-bit
// scale as the largest that are not. out: dtype_bytes(type, count).
void quantise(DType type, const float* x, int64_t count, std::byte* out);

}  // namespace coppice
