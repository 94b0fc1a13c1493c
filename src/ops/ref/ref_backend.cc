#include "ops/ref/ref_backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "ops/lazy_memory.h"
#include "ops/op_checks.h"
#include "ops/ref/attention.h"
#include "ops/ref/kv_pages.h"
#include "ops/weight_source.h"
#include "tensor/quant_block.h"

namespace coppice::ops {
namespace {

class RefWeight : public Weight {
 public:
  RefWeight(Buffer values, int64_t rows, int64_t cols)
      : values_(std::move(values)), rows_(rows), cols_(cols) {}
  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return values_.bytes(); }
  // Row n, [K].
  float* row(int64_t n) const { return reinterpret_cast<float*>(values_.data()) + n * cols_; }

 private:
  Buffer values_;
  int64_t rows_, cols_;
};

const RefWeight& as_ref(const Weight& w) { return static_cast<const RefWeight&>(w); }

class RefBackend : public Backend {
 public:
  explicit RefBackend(DType weights) : weights_(weights) {}

  std::string_view name() const override { return "ref"; }
  std::string describe() const override {
    return "ref: plain loops in double, one thread, " + std::string(dtype_name(weights_)) +
           " weights held as f32";
  }

  Expected<Buffer> allocate(int64_t bytes) override { return allocate_lazily(bytes); }
  Expected<std::unique_ptr<Weight>> load_weight(const TensorView& w) override;
  int64_t least_weight_bytes(DType, const Shape& shape) const override {
    return dtype_bytes(DType::kF32, shape.elements());
  }
  Expected<KvLayout> kv_layout(DType type, int32_t head_dim) override {
    return ref::kv_layout(type, head_dim);
  }
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    ref::zero_pages(arena, ids);
  }
  void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                  int32_t slots) override {
    ref::copy_slots(arena, from, from_slot, to, to_slot, slots);
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    ref::read_page(arena, id, slots, k, v);
  }

  void embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) override;
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override;
  void matmul(const TensorView& x, const Weight& w, const TensorView& bias,
              const TensorView& out) override;
  void add(const TensorView& x, const TensorView& y) override;
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override;
  void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) override;
  void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                   const TensorView& out) override;

  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    ref::write_kv(k, v, layer, plan, arena);
  }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    ref::attention(q, params, plan, arena, out);
  }
  void to_host(const TensorView& x, void* host) override {
    if (x.bytes() > 0) std::memcpy(host, x.raw(), static_cast<size_t>(x.bytes()));
  }

 private:
  DType weights_;
};

Expected<std::unique_ptr<Weight>> RefBackend::load_weight(const TensorView& w) {
  TRY_STATUS(check_weight_source(w));
  const int64_t rows = w.shape()[0], cols = w.shape()[1];
  TRY(Buffer values, allocate_lazily(dtype_bytes(DType::kF32, rows * cols)));
  auto weight = std::make_unique<RefWeight>(std::move(values), rows, cols);
  for (int64_t n = 0; n < rows; ++n) {
    float* row = weight->row(n);
    widen_row(w, n, row);
    if (is_quantised(w.type())) continue;  // they have a compute type of their own
    std::transform(row, row + cols, row, [this](float x) { return round_to(weights_, x); });
  }
  return weight;
}

void RefBackend::embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) {
  check_embed(ids, table, out);
  for (size_t t = 0; t < ids.size(); ++t) {
    std::copy_n(as_ref(table).row(ids[t]), table.cols(),
                out.f32() + static_cast<int64_t>(t) * table.cols());
  }
}

void RefBackend::rms_norm(const TensorView& x, const TensorView& weight, float eps,
                          const TensorView& out) {
  check_rms_norm(x, weight, out);
  const int64_t width = x.shape()[1];
  for (int64_t r = 0; r < x.shape()[0]; ++r) {
    const float* in = x.f32() + r * width;
    double squares = 0;
    for (int64_t i = 0; i < width; ++i) squares += double{in[i]} * double{in[i]};
    const double root = std::sqrt(squares / static_cast<double>(width) + double{eps});
    for (int64_t i = 0; i < width; ++i) {
      out.f32()[r * width + i] = static_cast<float>(double{in[i]} / root * double{weight.f32()[i]});
    }
  }
}

void RefBackend::matmul(const TensorView& x, const Weight& w, const TensorView& bias,
                        const TensorView& out) {
  check_matmul(x, w, bias, out);
  for (int64_t t = 0; t < x.shape()[0]; ++t) {
    const float* in = x.f32() + t * w.cols();
    for (int64_t n = 0; n < w.rows(); ++n) {
      const float* row = as_ref(w).row(n);
      double sum = 0;
      for (int64_t k = 0; k < w.cols(); ++k) sum += double{in[k]} * double{row[k]};
      if (!bias.empty()) sum += double{bias.f32()[n]};
      out.f32()[t * w.rows() + n] = static_cast<float>(sum);
    }
  }
}

void RefBackend::add(const TensorView& x, const TensorView& y) {
  CHECK(x.shape() == y.shape());
  for (int64_t i = 0; i < x.elements(); ++i) x.f32()[i] += y.f32()[i];
}

void RefBackend::swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) {
  CHECK(gate.shape() == up.shape() && out.shape() == up.shape());
  for (int64_t i = 0; i < out.elements(); ++i) {
    const double g = gate.f32()[i];
    out.f32()[i] = static_cast<float>(g / (1.0 + std::exp(-g)) * double{up.f32()[i]});
  }
}

void RefBackend::rope(const TensorView& x, const TensorView& cos, const TensorView& sin) {
  check_rope(x, cos, sin);
  const int64_t heads = x.shape()[1], half = x.shape()[2] / 2;
  for (int64_t t = 0; t < x.shape()[0]; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      float* head = x.f32() + (t * heads + h) * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const double c = cos.f32()[t * half + i], s = sin.f32()[t * half + i];
        const double low = head[i], high = head[i + half];
        head[i] = static_cast<float>(low * c - high * s);
        head[i + half] = static_cast<float>(high * c + low * s);
      }
    }
  }
}

void RefBackend::gather_rows(const TensorView& x, std::span<const int32_t> rows,
                             const TensorView& out) {
  check_gather_rows(x, rows, out);
  const int64_t width = x.shape()[1];
  for (size_t r = 0; r < rows.size(); ++r) {
    std::copy_n(x.f32() + rows[r] * width, width, out.f32() + static_cast<int64_t>(r) * width);
  }
}

}  // namespace

std::unique_ptr<Backend> make_ref_backend(DType weights) {
  return std::make_unique<RefBackend>(weights);
}

}  // namespace coppice::ops
