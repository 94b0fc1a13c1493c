// What:    a backend that passes everything on to the one it wraps, for those that change one
// thing.
//          reserve() is not passed on, so the wrapped one's scratch grows with what calls need.
// Owns:    the wrapped backend.
// Threads: as the wrapped one.
// Fails:   as the wrapped one.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "ops/backend.h"

namespace coppice::ops {

class PassingBackend : public Backend {
 public:
  explicit PassingBackend(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string_view name() const override { return inner_->name(); }
  std::string describe() const override { return inner_->describe(); }
  Expected<Buffer> allocate(int64_t bytes) override { return inner_->allocate(bytes); }
  int64_t scratch_bytes() const override { return inner_->scratch_bytes(); }
  Expected<std::unique_ptr<Weight>> load_weight(const TensorView& w) override {
    return inner_->load_weight(w);
  }
  int64_t least_weight_bytes(DType type, const Shape& shape) const override {
    return inner_->least_weight_bytes(type, shape);
  }
  int64_t loading_bytes(DType type, const Shape& shape) const override {
    return inner_->loading_bytes(type, shape);
  }
  Expected<KvLayout> kv_layout(DType type, int32_t head_dim) override {
    return inner_->kv_layout(type, head_dim);
  }
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    inner_->zero_pages(arena, ids);
  }
  void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                  int32_t slots) override {
    inner_->copy_slots(arena, from, from_slot, to, to_slot, slots);
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    inner_->read_page(arena, id, slots, k, v);
  }
  void embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) override {
    inner_->embed(ids, table, out);
  }
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override {
    inner_->rms_norm(x, weight, eps, out);
  }
  void matmul(const TensorView& x, const Weight& w, const TensorView& bias,
              const TensorView& out) override {
    inner_->matmul(x, w, bias, out);
  }
  void matmul_each(const TensorView& x, std::span<const Product> products) override {
    inner_->matmul_each(x, products);
  }
  void add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight, float eps,
                    const TensorView& out) override {
    inner_->add_rms_norm(x, y, weight, eps, out);
  }
  void add(const TensorView& x, const TensorView& y) override { inner_->add(x, y); }
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override {
    inner_->swiglu(gate, up, out);
  }
  void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) override {
    inner_->rope(x, cos, sin);
  }
  void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                   const TensorView& out) override {
    inner_->gather_rows(x, rows, out);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    inner_->write_kv(k, v, layer, plan, arena);
  }
  void rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView& cos, const TensorView& sin, int32_t layer,
                     const AttentionPlan& plan, const KvArena& arena) override {
    inner_->rope_write_kv(q, k, v, cos, sin, layer, plan, arena);
  }
  void to_host(const TensorView& x, void* host) override { inner_->to_host(x, host); }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    inner_->attention(q, params, plan, arena, out);
  }

 protected:
  std::unique_ptr<Backend> inner_;
};

}  // namespace coppice::ops
