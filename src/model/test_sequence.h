// What:    (tests) one sequence with pages of its own and the plans of its steps: a model runs on
//          it without a cache.
// Owns:    the arena and the page list.
// Threads: one.
// Fails:   CHECKs.
#pragma once

#include <numeric>
#include <vector>

#include "model/model.h"

namespace coppice::model::testing {

class TestSequence {
 public:
  // Room for `capacity` tokens.
  TestSequence(ops::Backend& backend, const ModelConfig& config, DType kv_type, int32_t capacity)
      : kv_heads_(config.num_key_value_heads) {
    arena_.layout = backend.kv_layout(kv_type, config.head_dim).value();
    stride_ = (capacity + arena_.layout.page_slots - 1) / arena_.layout.page_slots;
    const int32_t lists = config.num_hidden_layers * kv_heads_;
    pages_.resize(static_cast<size_t>(lists) * static_cast<size_t>(stride_));
    // Descending, so that nothing works by pages lying in order.
    std::iota(pages_.rbegin(), pages_.rend(), 0);
    memory_ =
        backend.allocate(arena_.layout.page_bytes * static_cast<int64_t>(pages_.size())).value();
    arena_.base = memory_.data();
    backend.zero_pages(arena_, pages_);
  }

  // Logits [R, V] of the rows `logit_rows` of a step that appends `tokens`.
  TensorView step(Model& model, std::span<const int32_t> tokens,
                  std::span<const int32_t> logit_rows) {
    const auto rows = static_cast<int32_t>(tokens.size());
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), length_);
    const ops::AttentionPlan plan = make_plan(rows);
    length_ += rows;
    return model.forward({.tokens = tokens,
                          .positions = positions,
                          .owners = {},
                          .evaluated = {},
                          .logit_rows = logit_rows,
                          .plan = plan,
                          .arena = arena_});
  }

  // The plan of the next `rows` tokens.
  ops::AttentionPlan make_plan(int32_t rows) const {
    CHECK(length_ + rows <= stride_ * arena_.layout.page_slots);
    ops::AttentionPlan plan;
    plan.rows = rows;
    plan.kv_heads = kv_heads_;
    if (rows == 0) return plan;
    plan.parts.push_back(
        {.pages = pages_.data(), .page_stride = stride_, .start = 0, .count = length_ + rows});
    plan.segments.push_back({.row_begin = 0, .row_end = rows, .part_begin = 0, .part_end = 1});
    for (int32_t slot = length_; slot < length_ + rows; ++slot) {
      plan.targets.push_back({.part = 0, .slot = slot});
      plan.row_first.push_back(0);
      plan.row_last.push_back(slot + 1);
    }
    return plan;
  }

  const ops::KvArena& arena() const { return arena_; }
  int32_t length() const { return length_; }

 private:
  int32_t kv_heads_;
  int32_t stride_ = 0;  // pages per list
  int32_t length_ = 0;  // tokens written
  ops::KvArena arena_;
  std::vector<ops::PageId> pages_;  // [L * Hkv][stride]
  Buffer memory_;
};

// Logits [T, V] after every token, when the tokens come in slices of these sizes.
inline std::vector<float> logits_in_slices(ops::Backend& backend, Model& model, DType kv_type,
                                           const std::vector<int32_t>& tokens,
                                           const std::vector<int32_t>& slices) {
  TestSequence sequence(backend, model.config(), kv_type, static_cast<int32_t>(tokens.size()));
  std::vector<float> out;
  size_t at = 0;
  for (const int32_t size : slices) {
    std::vector<int32_t> rows(static_cast<size_t>(size));
    std::iota(rows.begin(), rows.end(), 0);
    const TensorView logits =
        sequence.step(model, std::span(tokens).subspan(at, rows.size()), rows);
    out.insert(out.end(), logits.f32(), logits.f32() + logits.elements());
    at += rows.size();
  }
  CHECK(at == tokens.size());
  return out;
}

}  // namespace coppice::model::testing
