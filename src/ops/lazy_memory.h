// What:    zeroed memory that costs nothing until it is touched.
// Owns:    nothing; the Buffer it returns unmaps itself.
// Threads: any.
// Fails:   kTooLarge when the address space has no such range.
#pragma once

#include "tensor/tensor.h"

namespace coppice::ops {

// Small sizes come from the heap; from 1 MiB on they are mapped without reservation, aligned to
// 2 MiB and offered huge pages where they span any.
Expected<Buffer> allocate_lazily(int64_t bytes);

// Makes room for at least so many bytes; what the buffer held is lost when it has to grow.
Status grow_lazily(Buffer& buffer, int64_t bytes);

}  // namespace coppice::ops
