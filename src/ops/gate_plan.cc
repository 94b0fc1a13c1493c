#include "ops/gate_plan.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace coppice::ops {
namespace {

constexpr int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

class ListDecisions {
 public:
  ListDecisions(GatePlan& gate, GateRows& rows, int32_t list)
      : plan_(*gate.plan),
        rows_(rows),
        state_(rows.lists[list]),
        list_(list),
        page_slots_(gate.page_slots),
        kept_start_(plan_.parts[static_cast<size_t>(rows.kept_part)].list_start(list)),
        dropped_start_(plan_.parts[static_cast<size_t>(rows.dropped_part)].list_start(list)) {}

  void decide(int32_t row, float logit) {
    const int32_t i = row - rows_.row_begin;
    const auto position = static_cast<int32_t>(rows_.position) + i;
    const bool is_protected =
        position < rows_.rule.sinks || (rows_.exact != nullptr && rows_.exact[i] != 0);
    const bool kept = is_protected || !(logit < rows_.rule.threshold);
    KvTarget& target = plan_.targets[AttentionPlan::index(list_, row, plan_.target_stride)];
    if (kept) {
      target = {rows_.kept_part, state_.kept_end};
      append(state_.kept_pages, state_.kept_end++ - kept_start_);
    } else {
      state_.positions[state_.dropped_end - dropped_start_] = position;
      target = {rows_.dropped_part, state_.dropped_end};
      append(state_.dropped_pages, state_.dropped_end++ - dropped_start_);
    }
    state_.keep[i] = is_protected ? kProtectedByte : kept ? keep_byte(logit) : kDroppedByte;
    while (state_.visible < state_.dropped_end &&
           position - state_.positions[state_.visible - dropped_start_] >= rows_.rule.window) {
      ++state_.visible;
    }
    plan_.row_last[AttentionPlan::index(list_, row, plan_.row_stride)] = state_.kept_end;
    plan_.dropped_first[AttentionPlan::index(list_, row, plan_.rows)] = state_.visible;
    plan_.dropped_last[AttentionPlan::index(list_, row, plan_.rows)] = state_.dropped_end;
  }

  void finish() {
    rows_.kept_counts[list_] = state_.kept_end - kept_start_;
    rows_.dropped_counts[list_] = state_.dropped_end - dropped_start_;
  }

 private:
  void append(PageId* pages, int32_t at) {
    if (at % page_slots_ != 0) return;
    CHECK(state_.stock_used < state_.stock_size);
    pages[at / page_slots_] = state_.stock[state_.stock_used++];
  }

  AttentionPlan& plan_;
  GateRows& rows_;
  GateList& state_;
  const int32_t list_, page_slots_;
  const int32_t kept_start_, dropped_start_;
};

}  // namespace

uint8_t keep_byte(float logit) {
  const double p = std::isnan(logit) ? 1.0 : 1.0 / (1.0 + std::exp(-double{logit}));
  return static_cast<uint8_t>(2 + static_cast<int>(p * 252));
}

int32_t gate_pages_needed(int32_t rows, int32_t kept_room, int32_t dropped_room,
                          int32_t page_slots) {
  const auto pages = [&](int32_t tokens, int32_t room) {
    return divide_up(std::max(0, tokens - room), page_slots);
  };
  int32_t most = std::max(pages(rows, kept_room), pages(rows, dropped_room));
  // Both lists open a page: each with one token, the rest in whole pages.
  const int32_t beyond = rows - kept_room - dropped_room;
  if (beyond >= 2) most = std::max(most, (beyond - 2) / page_slots + 2);
  return most;
}

void resolve_gate(GatePlan& gate, int32_t layer, const TensorView& logits) {
  if (gate.empty()) return;
  const AttentionPlan& plan = *gate.plan;
  CHECK(logits.shape() == (Shape{plan.rows, plan.kv_heads}));
  CHECK(plan.gated() && plan.row_stride == plan.rows && plan.target_stride == plan.rows);
  for (GateRows& rows : gate.rows) {
    for (int32_t head = 0; head < plan.kv_heads; ++head) {
      ListDecisions list(gate, rows, layer * plan.kv_heads + head);
      for (int32_t row = rows.row_begin; row < rows.row_end; ++row) {
        list.decide(row, logits.f32()[static_cast<int64_t>(row) * plan.kv_heads + head]);
      }
      list.finish();
    }
  }
}

}  // namespace coppice::ops
