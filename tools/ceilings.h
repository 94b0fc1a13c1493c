// What:    what this machine gives at its best, measured in this process: the ceilings that a
//          kernel's time is held against.
// Owns:    nothing; the memory it reads is given back.
// Threads: the pool's.
// Fails:   kTooLarge when there is no memory to read from.
#pragma once

#include "coppice/error.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::tools {

struct Ceilings {
  double peak_gflops = 0;     // the kernel's own product on registers, all threads
  double exp_grate = 0;       // base-2 exponentials per ns, all threads
  double bandwidth_gbps = 0;  // one sequential read per thread from memory
  double l3_gbps = 0;         // the same from 4 MB per thread, read again and again
  // Below 90 % of the reference machine's (docs/KERNELS.md): others were at work.
  bool noisy = false;
};

Expected<Ceilings> measure_ceilings(ops::cpu::ThreadPool& pool,
                                    const ops::cpu::AttentionKernel& kernel, DType kv_type);

}  // namespace coppice::tools
