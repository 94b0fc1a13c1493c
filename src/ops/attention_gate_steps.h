// What:    gated sequences as an engine runs them, for tests: step by step, layer by layer, the
//          tokens of every list decided as their logits come, pages taken as they are needed.
// Owns:    a run its pages and what its sequences have become; the scripts are the caller's.
// Threads: one.
// Fails:   running out of pages is a CHECK.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "ops/attention_suite_case.h"
#include "ops/gate_plan.h"

namespace coppice::ops::gate_steps {

inline constexpr int32_t kLayers = 2, kHeads = 2, kGroup = 2, kDim = 32;
inline constexpr int32_t kQueryHeads = kHeads * kGroup, kLists = kLayers * kHeads;
inline constexpr int32_t kQueryRow = kQueryHeads * kDim, kRow = kHeads * kDim;
inline const AttentionParams kParams{.scale = 1.0f / std::sqrt(float{kDim})};

// What is known of a sequence whatever the steps.
struct Script {
  int32_t tokens = 0;
  bool gated = true;
  GateRule rule;
  std::vector<uint8_t> exact;               // [tokens]
  std::vector<std::vector<float>> q, k, v;  // [L][tokens, Hq or Hkv, D]
  std::vector<std::vector<float>> logits;   // [L][tokens, Hkv]

  bool keeps(int32_t layer, int32_t head, int32_t t) const {
    const auto at = static_cast<size_t>(t);
    return !gated || exact[at] != 0 || t < rule.sinks ||
           logits[static_cast<size_t>(layer)][at * kHeads + static_cast<size_t>(head)] >=
               rule.threshold;
  }
};

inline Script write_script(uint32_t seed, int32_t tokens, const GateRule& rule) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  const auto draw = [&](int32_t width, bool rounded) {
    std::vector<float> x(static_cast<size_t>(tokens * width));
    for (float& value : x) value = rounded ? to_float(to_bf16(normal(random))) : normal(random);
    return x;
  };
  Script script{
      .tokens = tokens, .rule = rule, .exact = {}, .q = {}, .k = {}, .v = {}, .logits = {}};
  for (int32_t t = 0; t < tokens; ++t) script.exact.push_back(random() % 16 == 0 ? 1 : 0);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    script.q.push_back(draw(kQueryRow, true));
    script.k.push_back(draw(kRow, false));
    script.v.push_back(draw(kRow, false));
    script.logits.push_back(draw(kHeads, false));
  }
  return script;
}

// The pages of a run: what is handed out holds large finite numbers, what is not holds NaN.
class Pages {
 public:
  Pages(Subject& subject, DType type)
      : layout_(*subject.kv_layout(type, kDim)),
        memory_(*Buffer::allocate(kPages * layout_.page_bytes)) {
    std::memset(memory_.data(), 0xff, static_cast<size_t>(memory_.bytes()));
    for (PageId id = kPages - 1; id >= 0; --id) free_.push_back(id);
  }
  KvArena arena() const { return {memory_.data(), layout_}; }
  int32_t slots() const { return layout_.page_slots; }
  PageId take() {
    CHECK(!free_.empty());
    const PageId id = free_.back();
    free_.pop_back();
    fill_unwritten(arena().page(id), layout_);
    return id;
  }
  void give_back(PageId id) {
    std::memset(arena().page(id), 0xff, static_cast<size_t>(layout_.page_bytes));
    free_.insert(free_.begin(), id);
  }

 private:
  static constexpr PageId kPages = 1200;
  KvLayout layout_;
  Buffer memory_;
  std::vector<PageId> free_;
};

// A live sequence of a run, and the part or parts of it in a plan.
class Live {
 public:
  Live(const Script& script, Pages& pages)
      : script_(script), pages_(pages), kept_(kLists), dropped_(kLists), lists_(kLists) {}
  const Script& script() const { return script_; }
  int32_t position() const { return position_; }

  // Its segments and parts of the next `rows` rows, from plan.rows on; bounds come later.
  void enter(int32_t rows, AttentionPlan& plan) {
    row_begin_ = plan.rows;
    rows_ = rows;
    plan.rows += rows;
    part_ = static_cast<int32_t>(plan.parts.size());
    for (size_t i = 0; i < kLists; ++i) script_.gated ? stock(i) : extend(kept_[i]);
    for (Table* table : {&kept_tables_, &dropped_tables_}) {
      const bool is_kept = table == &kept_tables_;
      if (!is_kept && !script_.gated) break;
      table->gather(is_kept ? kept_ : dropped_);
      plan.segments.push_back(
          {row_begin_, plan.rows, part_ + (is_kept ? 0 : 1), part_ + (is_kept ? 1 : 2), !is_kept});
      plan.parts.push_back(table->part());
    }
  }

  // What an ungated row's bounds and targets are, or where resolve_gate puts them.
  void bound(AttentionPlan& plan, GatePlan& gate) {
    if (script_.gated) return bound_gated(gate);
    const int32_t lists = plan.target_stride == 0 ? 1 : kLists;
    for (int32_t list = 0; list < lists; ++list) {
      for (int32_t i = 0; i < rows_; ++i) {
        const size_t at = AttentionPlan::index(list, row_begin_ + i, plan.rows);
        plan.targets[at] = {part_, position_ + i};
        plan.row_last[at] = position_ + i + 1;
      }
    }
  }

  // Copies this step's rows of x [tokens, width] to, or from, theirs in a step's array.
  void put(const std::vector<float>& x, int32_t width, std::vector<float>& step) const {
    std::copy_n(x.begin() + position_ * width, rows_ * width, step.begin() + row_begin_ * width);
  }
  void get(const std::vector<float>& step, std::vector<float>& x) const {
    const auto from = step.begin() + row_begin_ * kQueryRow;
    x.insert(x.end(), from, from + rows_ * kQueryRow);
  }

  // Takes over what the step decided; what no row will see again is given back.
  void leave() {
    position_ += rows_;
    if (!script_.gated) return;
    for (size_t i = 0; i < kLists; ++i) {
      const GateList& list = lists_[i];
      for (int32_t n = list.stock_used; n < list.stock_size; ++n) pages_.give_back(list.stock[n]);
      kept_[i].adopt(kept_tables_.row(i), list.kept_end, pages_.slots());
      dropped_[i].adopt(dropped_tables_.row(i), list.dropped_end, pages_.slots());
      List& dropped = dropped_[i];
      for (; list.visible - dropped.start >= pages_.slots(); dropped.start += pages_.slots()) {
        pages_.give_back(dropped.pages.front());
        dropped.pages.erase(dropped.pages.begin());
        dropped.positions.erase(dropped.positions.begin(),
                                dropped.positions.begin() + pages_.slots());
      }
    }
  }

 private:
  static constexpr int32_t kStride = 64;  // pages of a list
  struct List {
    int32_t start = 0, count = 0;
    std::vector<PageId> pages;
    std::vector<int32_t> positions = std::vector<int32_t>(kStride * 16);
    void adopt(const PageId* row, int32_t end, int32_t slots) {
      count = end - start;
      pages.assign(row, row + (count + slots - 1) / slots);
    }
  };
  // A part's arrays for a step.
  struct Table {
    std::vector<PageId> pages = std::vector<PageId>(kLists * kStride);
    std::vector<int32_t> starts = std::vector<int32_t>(kLists), counts = starts;
    PageId* row(size_t list) { return pages.data() + list * kStride; }
    void gather(const std::vector<List>& lists) {
      for (size_t i = 0; i < kLists; ++i) {
        std::copy(lists[i].pages.begin(), lists[i].pages.end(), row(i));
        starts[i] = lists[i].start;
        counts[i] = lists[i].count;
      }
    }
    KvPart part() const {
      return {.pages = pages.data(),
              .page_stride = kStride,
              .starts = starts.data(),
              .counts = counts.data()};
    }
  };

  void extend(List& list) {
    list.count += rows_;
    while (static_cast<int32_t>(list.pages.size()) * pages_.slots() < list.count) {
      list.pages.push_back(pages_.take());
    }
  }

  void stock(size_t i) {
    const auto room = [&](const List& list) {
      return static_cast<int32_t>(list.pages.size()) * pages_.slots() - list.count;
    };
    const int32_t most =
        gate_pages_needed(rows_, room(kept_[i]), room(dropped_[i]), pages_.slots());
    stocks_[i].clear();
    for (int32_t n = 0; n < most; ++n) stocks_[i].push_back(pages_.take());
    keep_[i].resize(static_cast<size_t>(rows_));
    GateList& list = lists_[i];
    list.kept_pages = kept_tables_.row(i);
    list.dropped_pages = dropped_tables_.row(i);
    list.stock = stocks_[i].data();
    list.stock_used = 0;
    list.stock_size = most;
    list.positions = dropped_[i].positions.data();
    list.keep = keep_[i].data();
  }

  void bound_gated(GatePlan& gate) {
    gate.rows.push_back({.row_begin = row_begin_,
                         .row_end = row_begin_ + rows_,
                         .position = position_,
                         .rule = script_.rule,
                         .exact = script_.exact.data() + position_,
                         .kept_part = part_,
                         .dropped_part = part_ + 1,
                         .kept_counts = kept_tables_.counts.data(),
                         .dropped_counts = dropped_tables_.counts.data(),
                         .lists = lists_.data()});
  }

  const Script& script_;
  Pages& pages_;
  std::vector<List> kept_, dropped_;
  std::vector<GateList> lists_;
  std::vector<PageId> stocks_[kLists];
  std::vector<uint8_t> keep_[kLists];
  Table kept_tables_, dropped_tables_;
  int32_t position_ = 0, row_begin_ = 0, rows_ = 0, part_ = 0;
};

// Sequences in one cache.
class GatedRun {
 public:
  GatedRun(Subject& subject, DType type, std::span<const Script* const> scripts)
      : subject_(subject), pages_(subject, type) {
    for (const Script* script : scripts) {
      live_.push_back(std::make_unique<Live>(*script, pages_));
      outputs_.emplace_back(kLayers);
    }
  }

  // To the end, each sequence by as many rows a step as `rows` says; returns what each computed.
  template <class Rows>
  std::vector<Case::Output> finish(const Rows& rows) {
    for (bool more = true; more;) {
      more = false;
      std::vector<size_t> in_step;
      AttentionPlan plan;
      plan.kv_heads = kHeads;
      for (size_t i = 0; i < live_.size(); ++i) {
        const int32_t left = live_[i]->script().tokens - live_[i]->position();
        const int32_t n = std::min(left, rows());
        more |= left > 0;
        if (n == 0) continue;
        live_[i]->enter(n, plan);
        in_step.push_back(i);
      }
      if (!in_step.empty()) step(in_step, plan);
    }
    return std::move(outputs_);
  }

 private:
  void step(const std::vector<size_t>& in_step, AttentionPlan& plan) {
    GatePlan gate;
    gate.plan = &plan;
    gate.page_slots = pages_.slots();
    const bool gated = std::any_of(in_step.begin(), in_step.end(),
                                   [&](size_t i) { return live_[i]->script().gated; });
    const auto cells = static_cast<size_t>(plan.rows) * (gated ? kLists : 1);
    plan.target_stride = plan.row_stride = gated ? plan.rows : 0;
    plan.targets.resize(cells);
    plan.row_first.resize(cells);
    plan.row_last.resize(cells);
    if (gated) plan.dropped_first.resize(cells);
    if (gated) plan.dropped_last.resize(cells);
    for (const size_t i : in_step) live_[i]->bound(plan, gate);
    for (int32_t layer = 0; layer < kLayers; ++layer) run_layer(layer, in_step, plan, gate);
    for (const size_t i : in_step) live_[i]->leave();
  }

  void run_layer(int32_t layer, const std::vector<size_t>& in_step, const AttentionPlan& plan,
                 GatePlan& gate) {
    const auto at = static_cast<size_t>(layer);
    const auto rows = static_cast<size_t>(plan.rows);
    std::vector<float> q(rows * kQueryRow), out(q.size()), k(rows * kRow), v(k.size());
    std::vector<float> logits(rows * kHeads);
    for (const size_t i : in_step) {
      const Script& script = live_[i]->script();
      live_[i]->put(script.q[at], kQueryRow, q);
      live_[i]->put(script.k[at], kRow, k);
      live_[i]->put(script.v[at], kRow, v);
      live_[i]->put(script.logits[at], kHeads, logits);
    }
    const Shape queries{plan.rows, kQueryHeads, kDim}, keys{plan.rows, kHeads, kDim};
    resolve_gate(gate, layer, {logits.data(), DType::kF32, {plan.rows, kHeads}});
    subject_.write_kv({k.data(), DType::kF32, keys}, {v.data(), DType::kF32, keys}, layer, plan,
                      pages_.arena());
    AttentionParams params = kParams;
    params.layer = layer;
    subject_.attention({q.data(), DType::kF32, queries}, params, plan, pages_.arena(),
                       {out.data(), DType::kF32, queries});
    for (const size_t i : in_step) live_[i]->get(out, outputs_[i][at]);
  }

  Subject& subject_;
  Pages pages_;
  std::vector<std::unique_ptr<Live>> live_;
  std::vector<Case::Output> outputs_;  // [sequences][L][tokens, Hq, D]
};

}  // namespace coppice::ops::gate_steps
