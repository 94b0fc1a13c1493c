// What:    the rules of backend.h that are the same for every backend: types refused, shapes as
//          CHECKs.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   check_kv_type: kUnsupported. A wrong shape or id is a programmer error and stops the
//          process.
#pragma once

#include <span>
#include <string>

#include "ops/backend.h"

namespace coppice::ops {

inline Status check_kv_type(DType type) {
  if (type == DType::kF32 || type == DType::kBF16 || type == DType::kI8) return {};
  return fail(ErrorCode::kUnsupported, "pages of type " + std::string(dtype_name(type)) +
                                           " are not supported (f32, bf16 and i8 are)");
}

inline void check_embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) {
  CHECK(out.shape() == (Shape{static_cast<int64_t>(ids.size()), table.cols()}));
  for (const int32_t id : ids) CHECK(id >= 0 && id < table.rows());
}

inline void check_rms_norm(const TensorView& x, const TensorView& weight, const TensorView& out) {
  CHECK(x.shape().rank() == 2 && out.shape() == x.shape());
  CHECK(weight.shape() == Shape{x.shape()[1]});
}

inline void check_matmul(const TensorView& x, const Weight& w, const TensorView& bias,
                         const TensorView& out) {
  CHECK(x.shape().rank() == 2 && x.shape()[1] == w.cols());
  CHECK(out.shape() == (Shape{x.shape()[0], w.rows()}));
  CHECK(bias.empty() || bias.shape() == Shape{w.rows()});
}

inline void check_rope(const TensorView& x, const TensorView& cos, const TensorView& sin) {
  CHECK(x.shape().rank() == 3 && x.shape()[2] % 2 == 0);
  CHECK(cos.shape() == (Shape{x.shape()[0], x.shape()[2] / 2}) && sin.shape() == cos.shape());
}

inline void check_gather_rows(const TensorView& x, std::span<const int32_t> rows,
                              const TensorView& out) {
  CHECK(x.shape().rank() == 2);
  CHECK(out.shape() == (Shape{static_cast<int64_t>(rows.size()), x.shape()[1]}));
  for (const int32_t row : rows) CHECK(row >= 0 && row < x.shape()[0]);
}

inline void check_write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                           const AttentionPlan& plan, const KvArena& arena) {
  CHECK(k.shape() == (Shape{plan.rows, plan.kv_heads, arena.layout.head_dim}));
  CHECK(v.shape() == k.shape());
  CHECK(plan.target_stride == 0 || plan.target_stride == plan.rows);
  const auto lists = static_cast<size_t>(plan.target_stride == 0 ? 1 : (layer + 1) * plan.kv_heads);
  CHECK(plan.targets.size() >= lists * static_cast<size_t>(plan.rows));
}

inline void check_copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to,
                             int32_t to_slot, int32_t slots) {
  const int32_t most = arena.layout.page_slots - slots;
  CHECK(slots >= 0 && from_slot >= 0 && from_slot <= most && to_slot >= 0 && to_slot <= most);
  CHECK(from != to || to_slot <= from_slot);
}

inline void check_attention(const TensorView& q, const AttentionParams& params,
                            const AttentionPlan& plan, const KvArena& arena,
                            const TensorView& out) {
  CHECK(q.shape().rank() == 3 && q.shape()[0] == plan.rows && out.shape() == q.shape());
  CHECK(q.shape()[2] == arena.layout.head_dim);
  CHECK(plan.kv_heads > 0 && q.shape()[1] % plan.kv_heads == 0);
  if (!plan.gated()) return;
  const auto bounds =
      static_cast<size_t>((params.layer + 1) * plan.kv_heads) * static_cast<size_t>(plan.rows);
  CHECK(plan.dropped_first.size() >= bounds && plan.dropped_last.size() >= bounds);
  CHECK(params.window == 0);  // a sliding window counts positions, which gated slots are not
}

}  // namespace coppice::ops
