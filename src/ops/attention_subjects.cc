#include "ops/attention_subjects.h"

#include <algorithm>

#include "ops/backends.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/attention_emulated.h"
#include "ops/cpu/kv_pages.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::ops {
namespace {

class BackendSubject : public Subject {
 public:
  explicit BackendSubject(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  Expected<KvLayout> kv_layout(DType type, int32_t dim) override {
    return backend_->kv_layout(type, dim);
  }
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    backend_->zero_pages(arena, ids);
  }
  void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                  int32_t slots) override {
    backend_->copy_slots(arena, from, from_slot, to, to_slot, slots);
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    backend_->read_page(arena, id, slots, k, v);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    backend_->write_kv(k, v, layer, plan, arena);
  }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    backend_->attention(q, params, plan, arena, out);
  }

 private:
  std::unique_ptr<Backend> backend_;
};

// One CPU kernel, its scratch full of NaN before every call.
class KernelSubject : public Subject {
 public:
  KernelSubject(const cpu::AttentionKernel& kernel, int threads)
      : pool_(threads), attention_(kernel, threads) {}
  Expected<KvLayout> kv_layout(DType type, int32_t dim) override {
    return cpu::kv_layout(type, dim);
  }
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    cpu::zero_pages(arena, ids);
  }
  void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                  int32_t slots) override {
    cpu::copy_slots(arena, from, from_slot, to, to_slot, slots);
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    cpu::read_page(arena, id, slots, k, v);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    cpu::write_kv(k, v, layer, plan, arena, 0, plan.rows);
  }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    const int32_t items = attention_.begin(q, params, plan, arena, out);
    attention_.poison_scratch();
    pool_.parallel_for(items, [&](int32_t item, int32_t worker) { attention_.run(item, worker); });
  }

 private:
  cpu::ThreadPool pool_;
  cpu::Attention attention_;
};

// The order of pages inside a tile turned round: as accurate, and no longer canonical.
struct ReversedFold {
  static constexpr int page(int i, int n) { return n - 1 - i; }
};

namespace kernels {
using namespace cpu::emulated;
using Dot = DotBf16<EmulatedOps>;
using Int8 = DotInt8<EmulatedOps>;
using F32 = F32Pages<EmulatedOps>;
constexpr cpu::AttentionKernel kEmulated{.name = "emulated",
                                         .run_bf16 = run_item<EmulatedOps, Dot>,
                                         .run_f32 = run_item<EmulatedOps, F32>,
                                         .run_int8 = run_item<EmulatedOps, Int8>,
                                         .merge = merge_item<EmulatedOps, F32>,
                                         .rounds_q = true};
// For bf16 pages only.
constexpr cpu::AttentionKernel kReversed{.name = "reversed",
                                         .run_bf16 = run_item<EmulatedOps, Dot, ReversedFold>,
                                         .merge = merge_item<EmulatedOps, F32>,
                                         .rounds_q = true};
}  // namespace kernels

}  // namespace

std::unique_ptr<Subject> reversed_subject() {
  return std::make_unique<KernelSubject>(kernels::kReversed, 1);
}

std::unique_ptr<Subject> make_subject(const std::string& name, int threads) {
  if (name == "kernel/emulated") {
    return std::make_unique<KernelSubject>(kernels::kEmulated, threads);
  }
  if (name.starts_with("kernel/")) {
    const auto isa = cpu::choose_isa(name.substr(7));
    if (!isa) return nullptr;
    return std::make_unique<KernelSubject>(cpu::attention_kernel(*isa), threads);
  }
  auto backend = make_backend(name, {.threads = threads});
  CHECK(backend.has_value());
  return std::make_unique<BackendSubject>(std::move(*backend));
}

std::string test_name(const char* subject) {
  std::string name = subject;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

}  // namespace coppice::ops
