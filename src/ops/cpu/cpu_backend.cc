#include "ops/cpu/cpu_backend.h"

#include <algorithm>
#include <cstring>

#include "ops/cpu/kv_pages.h"
#include "ops/cpu/panel_weight.h"
#include "ops/cpu/quant_weight.h"
#include "ops/lazy_memory.h"
#include "ops/op_checks.h"
#include "ops/weight_source.h"
#include "tensor/quant_block.h"

namespace coppice::ops::cpu {
namespace {

const CpuWeight& as_cpu(const Weight& w) { return static_cast<const CpuWeight&>(w); }

// Costs of one element beside a multiply-add, for cutting work into runs; only their size matters.
constexpr int64_t kStreamCost = 4;
constexpr int64_t kExponentialCost = 16;

// The implementation that was seen to give a row the same bits at every row count.
constexpr std::string_view kOneDnnProduct = "brg:avx512_core_bf16";

}  // namespace

Expected<std::unique_ptr<Backend>> CpuBackend::create(const BackendOptions& options) {
  TRY(const Isa isa, choose_isa(options.isa));
  const int threads = options.threads == 0 ? physical_cores() : options.threads;
  return std::unique_ptr<Backend>(
      new CpuBackend(isa, attention_kernel(isa), threads, options.weights));
}

CpuBackend::CpuBackend(Isa isa, const AttentionKernel& attention, int threads, DType weights)
    : isa_(isa),
      kernels_(dense_kernels(isa)),
      weights_(weights),
      pool_(threads),
      attention_(attention, threads) {
  if (isa == Isa::kAvx512Bf16 && weights == DType::kBF16) {
    if (auto onednn = OneDnn::make(threads)) onednn_ = std::move(*onednn);
  }
}

std::string CpuBackend::describe() const {
  std::string text = "cpu: isa " + std::string(isa_name(isa_)) + ", " +
                     std::to_string(pool_.threads()) + " threads\n";
  int64_t used = 0;
  for (const auto& [shape, refusal] : probed_) {
    if (refusal.empty()) {
      ++used;
    } else {
      text += "products " + Shape{shape.first, shape.second}.text() + ": own, " + refusal + "\n";
    }
  }
  if (used > 0) {
    text += "products: oneDNN " + std::string(kOneDnnProduct) + " for " + std::to_string(used) +
            " shapes, activations rounded to bf16\n";
  }
  text += "products" + std::string(used > 0 ? " otherwise" : "") + ": own panels of " +
          std::to_string(kernels_.panel) + " columns, " + std::string(kernels_.name) + ", " +
          (weights_ == DType::kBF16 ? "bf16 weights widened in registers, f32 activations\n"
                                    : "f32 weights and activations\n");
  return text + "attention: " + std::string(attention_.kernel().name);
}

template <class Body>
void CpuBackend::for_runs(int64_t count, int64_t cost_of_one, const Body& body) {
  const int64_t runs = count_runs(pool_, count, cost_of_one);
  pool_.parallel_for(static_cast<int32_t>(runs), [&](int32_t i, int32_t) {
    body(run_begin(count, runs, i), run_begin(count, runs, i + 1));
  });
}

// --- memory

Expected<Buffer> CpuBackend::allocate(int64_t bytes) { return allocate_lazily(bytes); }

Status CpuBackend::reserve(const StepLimits& limits) {
  Status made = attention_.reserve(limits);
  if (made && limits.quantised) made = quant_scratch_.reserve(limits.rows, limits.widest);
  if (made && onednn_ != nullptr) made = onednn_->reserve(weights_, limits.rows, limits.widest);
  if (made) return {};
  return fail(made.error().code, "no memory for the scratch of a step of " +
                                     std::to_string(limits.rows) +
                                     " rows: " + made.error().message);
}

int64_t CpuBackend::scratch_bytes() const {
  return attention_.scratch_bytes() + quant_scratch_.bytes() +
         (onednn_ != nullptr ? onednn_->scratch_bytes() : 0);
}

std::unique_ptr<Weight> CpuBackend::load_with_onednn(const TensorView& w) {
  const std::pair shape{w.shape()[0], w.shape()[1]};
  const auto known = probed_.find(shape);
  if (known != probed_.end() && !known->second.empty()) return nullptr;
  auto weight = OneDnnWeight::pack(*onednn_, pool_, w, weights_);
  std::string refusal;
  if (!weight) {
    refusal = weight.error().message;
  } else if (known == probed_.end()) {
    refusal = (*weight)->probe(pool_, kOneDnnProduct);
  }
  probed_[shape] = refusal;
  if (!refusal.empty()) return nullptr;
  return std::move(*weight);
}

Expected<std::unique_ptr<Weight>> CpuBackend::load_weight(const TensorView& w) {
  TRY_STATUS(check_weight_source(w));
  if (is_quantised(w.type())) {
    return QuantWeight::pack(pool_, quant_kernels(isa_), quant_scratch_, w);
  }
  if (onednn_ != nullptr) {
    if (auto weight = load_with_onednn(w)) return weight;
  }
  return PanelWeight::pack(pool_, kernels_, w, weights_);
}

// Exact but for what oneDNN may take: it says its own layout's bytes when it has packed.
int64_t CpuBackend::least_weight_bytes(DType type, const Shape& shape) const {
  if (is_quantised(type)) return QuantWeight::packed_bytes(quant_kernels(isa_), type, shape);
  if (onednn_ != nullptr) return dtype_bytes(weights_, shape.elements());
  return PanelWeight::packed_bytes(kernels_, weights_, shape);
}

int64_t CpuBackend::loading_bytes(DType type, const Shape& shape) const {
  if (is_quantised(type) || onednn_ == nullptr) return 0;
  return OneDnnWeight::loading_bytes(weights_, shape, probed_.contains({shape[0], shape[1]}));
}

Expected<KvLayout> CpuBackend::kv_layout(DType type, int32_t head_dim) {
  return cpu::kv_layout(type, head_dim);
}

void CpuBackend::zero_pages(const KvArena& arena, std::span<const PageId> ids) {
  cpu::zero_pages(arena, ids);
}

void CpuBackend::copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to,
                            int32_t to_slot, int32_t slots) {
  cpu::copy_slots(arena, from, from_slot, to, to_slot, slots);
}

void CpuBackend::read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                           const TensorView& v) {
  cpu::read_page(arena, id, slots, k, v);
}

void CpuBackend::to_host(const TensorView& x, void* host) {
  if (x.bytes() > 0) std::memcpy(host, x.raw(), static_cast<size_t>(x.bytes()));
}

// --- dense

void CpuBackend::embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) {
  check_embed(ids, table, out);
  const int64_t width = table.cols();
  for_runs(static_cast<int64_t>(ids.size()), width * kStreamCost, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      as_cpu(table).read_row(ids[static_cast<size_t>(t)], out.f32() + t * width);
    }
  });
}

void CpuBackend::rms_norm(const TensorView& x, const TensorView& weight, float eps,
                          const TensorView& out) {
  check_rms_norm(x, weight, out);
  const int64_t width = x.shape()[1];
  for_runs(x.shape()[0], width * kStreamCost, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      kernels_.rms_norm(x.f32() + r * width, weight.f32(), eps, width, out.f32() + r * width);
    }
  });
}

void CpuBackend::matmul(const TensorView& x, const Weight& w, const TensorView& bias,
                        const TensorView& out) {
  as_cpu(w).multiply(pool_, x, bias, out);
}

void CpuBackend::matmul_each(const TensorView& x, std::span<const Product> products) {
  multiply_each(pool_, x, products);
}

void CpuBackend::add(const TensorView& x, const TensorView& y) {
  CHECK(x.shape() == y.shape());
  for_runs(x.elements(), kStreamCost, [&](int64_t begin, int64_t end) {
    kernels_.add(x.f32() + begin, y.f32() + begin, end - begin);
  });
}

void CpuBackend::add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight,
                              float eps, const TensorView& out) {
  CHECK(x.shape() == y.shape());
  check_rms_norm(x, weight, out);
  const int64_t width = x.shape()[1];
  for_runs(x.shape()[0], 2 * width * kStreamCost, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin * width; at < end * width; at += width) {
      kernels_.add(x.f32() + at, y.f32() + at, width);
      kernels_.rms_norm(x.f32() + at, weight.f32(), eps, width, out.f32() + at);
    }
  });
}

void CpuBackend::swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) {
  CHECK(gate.shape() == up.shape() && out.shape() == up.shape());
  for_runs(out.elements(), kExponentialCost, [&](int64_t begin, int64_t end) {
    kernels_.swiglu(gate.f32() + begin, up.f32() + begin, end - begin, out.f32() + begin);
  });
}

void CpuBackend::rotate(const TensorView& x, const TensorView& cos, const TensorView& sin,
                        int64_t begin, int64_t end) const {
  const int64_t heads = x.shape()[1], half = x.shape()[2] / 2;
  for (int64_t t = begin; t < end; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      kernels_.rope(x.f32() + (t * heads + h) * 2 * half, cos.f32() + t * half,
                    sin.f32() + t * half, half);
    }
  }
}

void CpuBackend::rope(const TensorView& x, const TensorView& cos, const TensorView& sin) {
  check_rope(x, cos, sin);
  const int64_t width = x.shape()[1] * x.shape()[2];
  for_runs(x.shape()[0], width * kStreamCost,
           [&](int64_t begin, int64_t end) { rotate(x, cos, sin, begin, end); });
}

void CpuBackend::gather_rows(const TensorView& x, std::span<const int32_t> rows,
                             const TensorView& out) {
  check_gather_rows(x, rows, out);
  const int64_t width = x.shape()[1];
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy_n(x.f32() + rows[r] * width, width, out.f32() + static_cast<int64_t>(r) * width);
  }
}

// --- keys, values, attention

void CpuBackend::write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                          const AttentionPlan& plan, const KvArena& arena) {
  check_write_kv(k, v, layer, plan, arena);
  const int64_t width = int64_t{plan.kv_heads} * arena.layout.head_dim;
  for_runs(plan.rows, 2 * width * kStreamCost, [&](int64_t begin, int64_t end) {
    cpu::write_kv(k, v, layer, plan, arena, static_cast<int32_t>(begin), static_cast<int32_t>(end));
  });
}

void CpuBackend::rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                               const TensorView& cos, const TensorView& sin, int32_t layer,
                               const AttentionPlan& plan, const KvArena& arena) {
  check_rope(q, cos, sin);
  check_rope(k, cos, sin);
  check_write_kv(k, v, layer, plan, arena);
  const int64_t width = (q.shape()[1] + 3 * k.shape()[1]) * k.shape()[2];
  for_runs(plan.rows, width * kStreamCost, [&](int64_t begin, int64_t end) {
    rotate(q, cos, sin, begin, end);
    rotate(k, cos, sin, begin, end);
    cpu::write_kv(k, v, layer, plan, arena, static_cast<int32_t>(begin), static_cast<int32_t>(end));
  });
}

void CpuBackend::attention(const TensorView& q, const AttentionParams& params,
                           const AttentionPlan& plan, const KvArena& arena, const TensorView& out) {
  pool_.parallel_for(attention_.begin(q, params, plan, arena, out),
                     [&](int32_t item, int32_t thread) { attention_.run(item, thread); });
}

}  // namespace coppice::ops::cpu
