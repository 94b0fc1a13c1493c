// What:    a weight matrix that can multiply: what the cpu backend's load_weight returns.
// Owns:    its packed values.
// Threads: one caller; multiply uses the pool.
// Fails:   never, once packed.
#pragma once

#include "ops/backend.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::ops::cpu {

class CpuWeight : public Weight {
 public:
  // out [T, N] = x [T, K] . w^T (+ bias [N] if not empty). A row's bits depend on that row alone.
  virtual void multiply(ThreadPool& pool, const TensorView& x, const TensorView& bias,
                        const TensorView& out) const = 0;
  // out [K] = row n of the matrix, as packed.
  virtual void read_row(int64_t n, float* out) const = 0;
};

// How work over `count` things of a given cost is cut for a pool: one run when it is too little to
// hand over, else a few runs per thread, so that a thread that is held up leaves its share to
// others.
int64_t count_runs(const ThreadPool& pool, int64_t count, int64_t cost_of_one);
// Where run i begins when `count` things are dealt out evenly.
inline int64_t run_begin(int64_t count, int64_t runs, int64_t i) { return count * i / runs; }

}  // namespace coppice::ops::cpu
