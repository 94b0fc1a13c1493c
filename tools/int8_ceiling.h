// What:    how fast an instruction set multiplies bytes and adds the products up, when nothing else
//          is done: the ceiling that block-quantised products are held against.
// Owns:    nothing.
// Threads: any.
// Fails:   never; the instruction set must be one that choose_isa() found.
#pragma once

#include <cstdint>

#include "ops/cpu/isa.h"

namespace coppice::tools {

// Does `steps` steps of independent sums and returns the operations (a product and its sum count
// two). AVX2 and AVX-512: pairs of products added in 16 bits, as the 4-bit kernels do; with VNNI,
// four added in 32 bits. `sink` keeps the result alive.
double burn_int8(ops::cpu::Isa isa, int64_t steps, float* sink);

}  // namespace coppice::tools
