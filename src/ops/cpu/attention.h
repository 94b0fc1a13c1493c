// What:    two-phase attention over a plan: out = softmax(scale q k^T) v for every row and head.
// Owns:    the scratch of its workers, as reserved; beyond that it grows to the largest call.
// Threads: begin() on the calling thread, then run() of every item, each once, on any worker; the
//          items of one call are independent and may run at the same time on different workers.
// Fails:   reserve: kTooLarge. Else never; a call that was not reserved for CHECKs its memory.
//
//   pool.parallel_for(attention.begin(q, params, plan, arena, out),
//                     [&](int32_t item, int32_t worker) { attention.run(item, worker); });
//
// A row's result is bit-equal for every plan, split, worker and number of threads: see
// attention_fold-inl.h for the fold that all of them share.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "ops/backend.h"
#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/isa.h"

namespace coppice::ops::cpu {

// The kernel compiled for an instruction set that choose_isa() has found on this CPU.
const AttentionKernel& attention_kernel(Isa isa);

class Attention {
 public:
  // What the partials of split row blocks may take together. Blocks that find no room are not
  // split.
  static constexpr int64_t kPartialBytes = int64_t{64} << 20;

  // workers: how many different values run() will see.
  Attention(const AttentionKernel& kernel, int32_t workers, int64_t partial_limit = kPartialBytes);
  ~Attention();

  // Makes room for every call within the limits.
  Status reserve(const StepLimits& limits);

  const AttentionKernel& kernel() const { return *kernel_; }

  // Checks the shapes and cuts the call into items; returns their number. q, out [T, Hq, D]; they,
  // the plan and the arena must live until the last item has run.
  int32_t begin(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                const KvArena& arena, const TensorView& out);
  void run(int32_t item, int32_t worker);

  int64_t scratch_bytes() const;
  // Fills all scratch with NaN: a call must not depend on what the last one left there.
  void poison_scratch();

 private:
  // How the rows of a call are cut, before any is found too short to split.
  struct Cut {
    int32_t block_rows = 0;
    int64_t blocks = 0;  // of all KV heads
    int32_t splits = 0;  // of each block, by slots
  };
  Cut cut(int32_t rows, int32_t group, int32_t kv_heads) const;
  AttentionKernel::Run run_over(DType pages) const;
  void cut_items();
  void cut_rows(int32_t kv_head, int32_t row_begin, int32_t row_end, int32_t splits);
  void place_partials();
  Status grow_rows(int64_t packed_rows, int32_t padded_dim);
  Status grow_splits(int64_t blocks, int64_t bytes);

  const AttentionKernel* kernel_;
  int32_t workers_;
  int64_t partial_limit_;
  AttentionJob job_;
  std::vector<AttentionItem> items_;
  std::vector<Buffer> row_memory_;   // per worker
  std::vector<AttentionRows> rows_;  // into it
  Buffer partial_memory_;
  int64_t packed_capacity_ = 0, dim_capacity_ = 0;
  // Items still running, per row block that was split by slots.
  std::unique_ptr<std::atomic<int32_t>[]> running_;
  int32_t split_blocks_ = 0;    // of this call
  int64_t split_bytes_ = 0;     // their partials
  int64_t split_capacity_ = 0;  // blocks that running_ has room for
};

}  // namespace coppice::ops::cpu
