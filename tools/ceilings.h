// What:    what this machine gives at its best, measured in this process: the ceilings that a
//          kernel's time is held against.
// Owns:    nothing; the memory it reads is given back.
// Threads: the pool's.
// Fails:   kTooLarge when there is no memory to read from.
#pragma once

#include "coppice/error.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/thread_pool.h"
#include "tensor/dtype.h"

namespace coppice::tools {

// All threads together.
struct Ceilings {
  int threads = 1;
  ops::cpu::Isa isa = ops::cpu::Isa::kAvx2;
  double f32_gflops = 0;      // multiply-adds on registers
  double bf16_gflops = 0;     // bf16 dot products where the instruction set has them, else as f32
  double int8_gops = 0;       // products of bytes, added up
  double exp_grate = 0;       // base-2 exponentials per ns
  double bandwidth_gbps = 0;  // sequential reads from memory, the fastest way of read_ceiling.h
  double l3_gbps = 0;         // the same from 4 MB per thread, read again and again
  // Below 90 % of the reference machine's (docs/KERNELS.md): others were at work, or it is another
  // machine.
  bool noisy = false;

  // The ceiling of products whose right side has this type: weights, or keys and values.
  double peak_gflops(DType type) const;
  // By how much of itself the figure rose that rose most.
  double risen_over(const Ceilings& before) const;
};

// Taken until they rise no more, within limits.
Expected<Ceilings> measure_ceilings(int threads, ops::cpu::Isa isa);
// Once more: the better figure of each counts, because a ceiling taken while something else was at
// work flatters whatever is held against it.
Status raise_ceilings(Ceilings& ceilings);

// Bytes of the last-level cache that one core sees; 32 MiB where the system does not say.
int64_t last_level_cache();

}  // namespace coppice::tools
