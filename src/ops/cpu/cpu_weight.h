// What:    a weight matrix that can multiply: what the cpu backend's load_weight returns.
// Owns:    its packed values.
// Threads: one caller; a product uses the pool.
// Fails:   never, once packed.
#pragma once

#include <span>

#include "ops/backend.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::ops::cpu {

// A part of a product that one thread does: out [T, N] = x [T, K] . w^T (+ bias [N] if not null).
struct ProductPart {
  const float* x = nullptr;
  int64_t rows = 0;
  const float* bias = nullptr;
  float* out = nullptr;
  int64_t index = 0, count = 1;  // which part of how many
  int32_t thread = 0;
};

// What prepare() makes of x; weights of one kind share it.
enum class PreparedRows { kNone, kBlocksOf32, kBlocksOf256, kOneDnn };

class CpuWeight : public Weight {
 public:
  virtual PreparedRows prepared_rows() const = 0;
  // Brings x [T, K] into the form that parts of this kind read, until the next prepare() of any.
  virtual void prepare(ThreadPool& pool, const TensorView& x) const = 0;
  // Into how many parts a product of so many rows is best cut; more are allowed, and may be empty.
  virtual int64_t part_count(const ThreadPool& pool, int64_t rows) const = 0;
  // After prepare(); parts may run in any order, on any threads. A row's bits depend on that row
  // alone.
  virtual void multiply_part(const ProductPart& part) const = 0;
  // out [K] = row n of the matrix, as packed.
  virtual void read_row(int64_t n, float* out) const = 0;

  // The whole product, alone.
  void multiply(ThreadPool& pool, const TensorView& x, const TensorView& bias,
                const TensorView& out) const;
};

// Several products of the same x as one piece of work; weights must be CpuWeights.
void multiply_each(ThreadPool& pool, const TensorView& x, std::span<const Product> products);

// How work over `count` things of a given cost is cut for a pool: one run when it is too little to
// hand over, else a few runs per thread, so that a thread that is held up leaves its share to
// others.
int64_t count_runs(const ThreadPool& pool, int64_t count, int64_t cost_of_one);
// Where run i begins when `count` things are dealt out evenly.
inline int64_t run_begin(int64_t count, int64_t runs, int64_t i) { return count * i / runs; }

}  // namespace coppice::ops::cpu
