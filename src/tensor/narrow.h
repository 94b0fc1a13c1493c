// What:    floats to elements of any type, the way back from widen.h.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; the type must be one of can_narrow().
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace coppice {

bool can_narrow(DType type);
// x [count], whole blocks of the type. out: dtype_bytes(type, count), aligned for the type.
void narrow_row(DType type, const float* x, int64_t count, std::byte* out);

}  // namespace coppice
