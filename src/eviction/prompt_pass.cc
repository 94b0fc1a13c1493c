#include "eviction/prompt_pass.h"

#include <numeric>
#include <utility>

#include "base/check.h"

namespace coppice::eviction {

PromptPass::PromptPass(const model::ModelConfig& config, int32_t page_slots,
                       std::vector<ops::PageId> stock)
    : layers_(config.num_hidden_layers),
      heads_(config.num_key_value_heads),
      page_slots_(page_slots),
      each_(stock.size() / static_cast<size_t>(layers_ * heads_)),
      stock_(std::move(stock)),
      kept_(stock_.size()),
      dropped_(stock_.size()),
      lists_(static_cast<size_t>(layers_ * heads_)) {
  CHECK(each_ * lists_.size() == stock_.size());
}

void PromptPass::run(model::Model& model, model::Gate& gate, const ops::GateRule& rule,
                     std::span<const int32_t> tokens, const ops::KvArena& arena) {
  const auto rows = static_cast<int32_t>(tokens.size());
  CHECK(ops::gate_pages_needed(rows, 0, 0, page_slots_) <= static_cast<int32_t>(each_));
  std::vector<int32_t> dropped_at(lists_.size() * tokens.size());
  std::vector<uint8_t> keep(dropped_at.size());
  std::vector<int32_t> kept_counts(lists_.size()), dropped_counts(lists_.size());
  std::vector<float> memory(static_cast<size_t>(layers_ * gate.memory_floats()));
  for (size_t i = 0; i < lists_.size(); ++i) {
    lists_[i] = {.kept_pages = kept_.data() + i * each_,
                 .dropped_pages = dropped_.data() + i * each_,
                 .stock = stock_.data() + i * each_,
                 .stock_size = static_cast<int32_t>(each_),
                 .positions = dropped_at.data() + i * tokens.size(),
                 .keep = keep.data() + i * tokens.size()};
  }
  ops::AttentionPlan plan;
  plan.rows = plan.row_stride = plan.target_stride = rows;
  plan.kv_heads = heads_;
  const auto stride = static_cast<int32_t>(each_);
  plan.parts = {{.pages = kept_.data(), .page_stride = stride, .counts = kept_counts.data()},
                {.pages = dropped_.data(), .page_stride = stride, .counts = dropped_counts.data()}};
  plan.segments = {{0, rows, 0, 1}, {0, rows, 1, 2, true}};
  plan.targets.resize(dropped_at.size());
  for (auto* bounds : {&plan.row_first, &plan.row_last, &plan.dropped_first, &plan.dropped_last}) {
    bounds->assign(dropped_at.size(), 0);
  }
  ops::GatePlan gated;
  gated.plan = &plan;
  gated.page_slots = page_slots_;
  gated.rows.push_back({.row_begin = 0,
                        .row_end = rows,
                        .position = 0,
                        .rule = rule,
                        .exact = nullptr,
                        .kept_part = 0,
                        .dropped_part = 1,
                        .kept_counts = kept_counts.data(),
                        .dropped_counts = dropped_counts.data(),
                        .lists = lists_.data(),
                        .memory = memory.empty() ? nullptr : memory.data()});
  std::vector<int32_t> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), 0);
  model.forward({.tokens = tokens,
                 .positions = positions,
                 .owners = {},
                 .evaluated = {},
                 .logit_rows = {},
                 .plan = plan,
                 .arena = arena,
                 .gate = &gate,
                 .gated = &gated});
  mask_ = KeepMask(static_cast<int32_t>(lists_.size()), rows, 0);
  first_seen_.clear();
  for (const ops::GateList& list : lists_) {
    int32_t first = list.visible;
    while (first < list.dropped_end && rows - list.positions[first] >= rule.window) ++first;
    first_seen_.push_back(first);
  }
  for (size_t i = 0; i < keep.size(); ++i) mask_.keep[i] = keep[i] != ops::kDroppedByte ? 1 : 0;
}

}  // namespace coppice::eviction
