// What:    the cpu backend: packed weights, vector kernels and two-phase attention on our own
//          threads.
// Owns:    its threads and the attention's scratch.
// Threads: one caller; workers run inside a call only.
// Fails:   create: kInvalidArgument or kUnsupported (isa), naming what this CPU has.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "ops/backend.h"
#include "ops/backends.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/dense_kernels.h"
#include "ops/cpu/isa.h"
#include "ops/cpu/onednn_weight.h"
#include "ops/cpu/quant_weight.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::ops::cpu {

class CpuBackend : public Backend {
 public:
  static Expected<std::unique_ptr<Backend>> create(const BackendOptions& options);

  std::string_view name() const override { return "cpu"; }
  std::string describe() const override;

  Expected<Buffer> allocate(int64_t bytes) override;
  Status reserve(const StepLimits& limits) override;
  int64_t scratch_bytes() const override;
  Expected<std::unique_ptr<Weight>> load_weight(const TensorView& w) override;
  int64_t least_weight_bytes(DType type, const Shape& shape) const override;
  int64_t loading_bytes(DType type, const Shape& shape) const override;
  Expected<KvLayout> kv_layout(DType type, int32_t head_dim) override;
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override;
  void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                  int32_t slots) override;
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override;

  void embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override;
  void matmul(const TensorView& x, const Weight& w, const TensorView& bias,
              const TensorView& out) override;
  void matmul_each(const TensorView& x, std::span<const Product> products) override;
  void add(const TensorView& x, const TensorView& y) override;
  void add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight, float eps,
                    const TensorView& out) override;
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) override;
  void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                   const TensorView& out) override;

  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override;
  void rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView& cos, const TensorView& sin, int32_t layer,
                     const AttentionPlan& plan, const KvArena& arena) override;
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override;
  void to_host(const TensorView& x, void* host) override;

 private:
  CpuBackend(Isa isa, const AttentionKernel& attention, int threads, DType weights);

  // A weight in oneDNN's hands, or null where its probe refuses the shape.
  std::unique_ptr<Weight> load_with_onednn(const TensorView& w);
  // Rows [begin, end) of x [T, H, D].
  void rotate(const TensorView& x, const TensorView& cos, const TensorView& sin, int64_t begin,
              int64_t end) const;
  // body(begin, end) over all of [0, count), in runs that may be on different threads.
  template <class Body>
  void for_runs(int64_t count, int64_t cost_of_one, const Body& body);

  Isa isa_;
  const DenseKernels& kernels_;
  DType weights_;
  ThreadPool pool_;
  Attention attention_;
  QuantScratch quant_scratch_;
  std::unique_ptr<OneDnn> onednn_;  // null where its arithmetic is never the one wanted
  // Probed shapes [N, K]: empty where oneDNN is used, else why not.
  std::map<std::pair<int64_t, int64_t>, std::string> probed_;
};

}  // namespace coppice::ops::cpu
