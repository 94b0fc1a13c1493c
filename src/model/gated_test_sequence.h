// What:    (tests) sequences with kept and dropped lists of their own, beside such that are not
//          gated, and the plans of steps that have rows of several: a gated model runs on them
//          without a cache.
// Owns:    the arena; a sequence owns its lists, pages' names and memory.
// Threads: one.
// Fails:   CHECKs.
#pragma once

#include <deque>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "model/model.h"

namespace coppice::model::testing {

// One sequence. Everything of a list is written in order and nothing is ever freed.
class GatedTestSequence {
 public:
  // rule: none: no row is gated. memory_floats: of the gate, a layer. first_page: it has
  // pages_for(...) of the arena from there on.
  GatedTestSequence(const ModelConfig& config, const ops::KvLayout& layout, int32_t capacity,
                    std::optional<ops::GateRule> rule, int64_t memory_floats,
                    ops::PageId first_page)
      : capacity_(capacity),
        rule_(rule),
        stride_(stride(layout, capacity)),
        lists_(static_cast<size_t>(config.num_hidden_layers * config.num_key_value_heads)),
        kept_pages_(lists_.size() * stride_, -1),
        dropped_pages_(kept_pages_.size(), -1),
        stock_(2 * kept_pages_.size()),
        kept_counts_(lists_.size()),
        dropped_counts_(lists_.size()),
        positions_(lists_.size() * static_cast<size_t>(capacity)),
        keep_(positions_.size()),
        exact_(static_cast<size_t>(capacity)),
        memory_(static_cast<size_t>(config.num_hidden_layers * memory_floats), -1e30f) {
    // Descending, so that nothing works by pages lying in order.
    std::iota(stock_.rbegin(), stock_.rend(), first_page);
    for (size_t i = 0; i < lists_.size(); ++i) {
      lists_[i] = {.kept_pages = kept_pages_.data() + i * stride_,
                   .dropped_pages = dropped_pages_.data() + i * stride_,
                   .stock = stock_.data() + 2 * i * stride_,
                   .stock_size = static_cast<int32_t>(2 * stride_),
                   .positions = positions_.data() + i * static_cast<size_t>(capacity)};
      if (!rule_) std::copy_n(lists_[i].stock, stride_, lists_[i].kept_pages);
    }
  }
  GatedTestSequence(const GatedTestSequence&) = delete;
  GatedTestSequence& operator=(const GatedTestSequence&) = delete;

  static int64_t pages_for(const ModelConfig& config, const ops::KvLayout& layout,
                           int32_t capacity) {
    return int64_t{2} * config.num_hidden_layers * config.num_key_value_heads *
           static_cast<int64_t>(stride(layout, capacity));
  }

  bool gated() const { return rule_.has_value(); }
  int32_t length() const { return length_; }
  // What was decided of the token at `position`: ops::keep_byte.
  uint8_t keep(size_t list, int32_t position) const {
    return keep_[list * static_cast<size_t>(capacity_) + static_cast<size_t>(position)];
  }
  const std::vector<uint8_t>& keep() const { return keep_; }
  const std::vector<float>& memory() const { return memory_; }
  int32_t kept(size_t list) const { return lists_[list].kept_end; }
  void set_exact(int32_t position) { exact_[static_cast<size_t>(position)] = 1; }

  // Its next `rows` rows, added to a plan whose per-list arrays are made once all have added
  // theirs.
  void add(int32_t rows, ops::AttentionPlan& plan, ops::GatePlan& gate) {
    CHECK(length_ + rows <= capacity_);
    const auto part = static_cast<int32_t>(plan.parts.size());
    const int32_t begin = plan.rows, end = begin + rows;
    const auto stride = static_cast<int32_t>(stride_);
    if (!rule_) std::fill(kept_counts_.begin(), kept_counts_.end(), length_ + rows);
    plan.parts.push_back(
        {.pages = kept_pages_.data(), .page_stride = stride, .counts = kept_counts_.data()});
    plan.segments.push_back({begin, end, part, part + 1});
    if (rule_) {
      plan.parts.push_back({.pages = dropped_pages_.data(),
                            .page_stride = stride,
                            .counts = dropped_counts_.data()});
      plan.segments.push_back({begin, end, part + 1, part + 2, true});
      for (size_t i = 0; i < lists_.size(); ++i) {
        lists_[i].keep = keep_.data() + i * static_cast<size_t>(capacity_) + length_;
      }
      gate.rows.push_back({.row_begin = begin,
                           .row_end = end,
                           .position = length_,
                           .rule = *rule_,
                           .exact = exact_.data() + length_,
                           .kept_part = part,
                           .dropped_part = part + 1,
                           .kept_counts = kept_counts_.data(),
                           .dropped_counts = dropped_counts_.data(),
                           .lists = lists_.data(),
                           .memory = memory_.empty() ? nullptr : memory_.data()});
    }
    plan.rows = end;
  }
  // Targets and bounds of its rows [begin, ..) where they are not gated, for lists of stride T.
  void fill_ungated(int32_t begin, int32_t rows, int32_t part, ops::AttentionPlan& plan) const {
    const auto lists = static_cast<int32_t>(lists_.size());
    for (int32_t list = 0; list < (plan.target_stride == 0 ? 1 : lists); ++list) {
      for (int32_t i = 0; i < rows; ++i) {
        const size_t at = ops::AttentionPlan::index(list, begin + i, plan.target_stride);
        plan.targets[at] = {part, length_ + i};
        plan.row_last[at] = length_ + i + 1;
      }
    }
  }
  void advance(int32_t rows) { length_ += rows; }

 private:
  static size_t stride(const ops::KvLayout& layout, int32_t capacity) {
    return static_cast<size_t>((capacity + layout.page_slots - 1) / layout.page_slots);
  }

  int32_t capacity_, length_ = 0;  // tokens
  std::optional<ops::GateRule> rule_;
  size_t stride_;                                        // pages of a list
  std::vector<ops::GateList> lists_;                     // [L * Hkv]
  std::vector<ops::PageId> kept_pages_, dropped_pages_;  // [lists][stride]
  std::vector<ops::PageId> stock_;                       // [lists][2 stride]
  std::vector<int32_t> kept_counts_, dropped_counts_;    // [lists]
  std::vector<int32_t> positions_;                       // [lists][capacity]
  std::vector<uint8_t> keep_;                            // [lists][capacity]
  std::vector<uint8_t> exact_;                           // [capacity]
  std::vector<float> memory_;                            // [L][memory floats]
};

// The sequences of one model.
class GatedTestCache {
 public:
  // Room for `most` sequences of `capacity` tokens each. gate: null: none is gated.
  GatedTestCache(ops::Backend& backend, const ModelConfig& config, DType kv_type, int32_t capacity,
                 Gate* gate, int32_t most = 1)
      : config_(config), capacity_(capacity), gate_(gate) {
    arena_.layout = backend.kv_layout(kv_type, config.head_dim).value();
    each_ = GatedTestSequence::pages_for(config, arena_.layout, capacity);
    std::vector<ops::PageId> pages(static_cast<size_t>(each_ * most));
    std::iota(pages.begin(), pages.end(), 0);
    memory_ = backend.allocate(arena_.layout.page_bytes * each_ * most).value();
    arena_.base = memory_.data();
    backend.zero_pages(arena_, pages);
  }

  GatedTestSequence& begin(std::optional<ops::GateRule> rule) {
    const int64_t memory = gate_ == nullptr ? 0 : gate_->memory_floats();
    const auto first = static_cast<ops::PageId>(each_ * static_cast<int64_t>(sequences_.size()));
    return sequences_.emplace_back(config_, arena_.layout, capacity_, rule, memory, first);
  }

  struct Rows {
    GatedTestSequence& sequence;
    std::span<const int32_t> tokens;
  };
  // A step with the next tokens of each, and everything that it points to.
  class Step {
   public:
    Step(const GatedTestCache& cache, std::vector<Rows> all) : cache_(cache), all_(std::move(all)) {
      plan_.kv_heads = cache.config_.num_key_value_heads;
      std::vector<int32_t> parts;
      for (const Rows& rows : all_) {
        const auto count = static_cast<int32_t>(rows.tokens.size());
        tokens_.insert(tokens_.end(), rows.tokens.begin(), rows.tokens.end());
        for (int32_t i = 0; i < count; ++i) positions_.push_back(rows.sequence.length() + i);
        parts.push_back(static_cast<int32_t>(plan_.parts.size()));
        rows.sequence.add(count, plan_, gated_);
      }
      logit_rows_.resize(tokens_.size());
      std::iota(logit_rows_.begin(), logit_rows_.end(), 0);
      make_bounds(parts);
      gated_.plan = &plan_;
      gated_.page_slots = cache.arena_.layout.page_slots;
    }
    Step(const Step&) = delete;
    Step& operator=(const Step&) = delete;

    // Logits [T, V] of all rows. To be called once.
    TensorView forward(Model& model) {
      const TensorView logits = model.forward({.tokens = tokens_,
                                               .positions = positions_,
                                               .owners = {},
                                               .evaluated = {},
                                               .logit_rows = logit_rows_,
                                               .plan = plan_,
                                               .arena = cache_.arena_,
                                               .gate = cache_.gate_,
                                               .gated = &gated_});
      for (const Rows& rows : all_) {
        rows.sequence.advance(static_cast<int32_t>(rows.tokens.size()));
      }
      return logits;
    }
    std::span<const int32_t> tokens() const { return tokens_; }
    ops::GatePlan& gated() { return gated_; }

   private:
    // Per list where some row is gated; what a gate will fill is poison before.
    void make_bounds(const std::vector<int32_t>& parts) {
      const bool any = !gated_.empty();
      const int32_t lists = cache_.config_.num_hidden_layers * plan_.kv_heads;
      const size_t size = static_cast<size_t>(plan_.rows) * static_cast<size_t>(any ? lists : 1);
      plan_.row_stride = plan_.target_stride = any ? plan_.rows : 0;
      plan_.targets.assign(size, {-1, -1});
      plan_.row_first.assign(size, 0);
      plan_.row_last.assign(size, -1);
      if (any) {
        plan_.dropped_first.assign(size, 0);
        plan_.dropped_last.assign(size, 0);
      }
      int32_t row = 0;
      for (size_t i = 0; i < all_.size(); ++i) {
        const auto count = static_cast<int32_t>(all_[i].tokens.size());
        if (!all_[i].sequence.gated()) all_[i].sequence.fill_ungated(row, count, parts[i], plan_);
        row += count;
      }
    }

    const GatedTestCache& cache_;
    std::vector<Rows> all_;
    std::vector<int32_t> tokens_, positions_, logit_rows_;
    ops::AttentionPlan plan_;
    ops::GatePlan gated_;
  };

 private:
  ModelConfig config_;
  int32_t capacity_;
  Gate* gate_;
  int64_t each_ = 0;  // pages of a sequence
  ops::KvArena arena_;
  Buffer memory_;
  std::deque<GatedTestSequence> sequences_;
};

}  // namespace coppice::model::testing
