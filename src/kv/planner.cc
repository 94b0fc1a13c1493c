#include "kv/planner.h"

#include <algorithm>

#include "base/check.h"

namespace coppice::kv {

void Planner::plan(std::span<const Reservation> reservations, Partition partition, int32_t kv_heads,
                   Step& step) {
  reservations_ = reservations;
  partition_ = partition;
  roots_.clear();
  visited_.clear();
  gated_nodes_.clear();
  step.gate.plan = &step.plan;
  step.gate.rows.clear();
  step.tokens.clear();
  step.positions.clear();
  step.slices.clear();
  step.plan.segments.clear();
  step.plan.parts.clear();

  int32_t rows = 0;
  for (size_t i = 0; i < reservations.size(); ++i) {
    rows += reservations[i].rows;
    visit_path(static_cast<int32_t>(i), reservations[i]);
  }
  step.plan.rows = rows;
  step.plan.kv_heads = kv_heads;
  step.plan.row_stride = step.plan.target_stride = 0;
  step.plan.dropped_first.clear();
  step.plan.dropped_last.clear();
  step.plan.targets.resize(static_cast<size_t>(rows));
  step.plan.row_first.assign(static_cast<size_t>(rows), 0);
  step.plan.row_last.resize(static_cast<size_t>(rows));

  for (Node* root : roots_) {
    Node* node = root;
    while (node != nullptr) {
      enter(node, step);
      if (node->visit.first_child != nullptr) {
        node = node->visit.first_child;
        continue;
      }
      while (node != nullptr && node->visit.next_sibling == nullptr) node = node->parent;
      if (node != nullptr) node = node->visit.next_sibling;
    }
  }
  for (Node* node : visited_) node->visit = {};
  if (!step.gate.empty()) widen_bounds(step);
}

// Gated rows have targets and bounds of their own in every list: all rows get them.
void Planner::widen_bounds(Step& step) const {
  ops::AttentionPlan& plan = step.plan;
  const auto repeat = [&](auto& values) {
    const size_t rows = values.size();
    values.resize(rows * static_cast<size_t>(lists_));
    for (size_t at = rows; at < values.size(); ++at) values[at] = values[at - rows];
  };
  plan.row_stride = plan.target_stride = plan.rows;
  repeat(plan.targets);
  repeat(plan.row_first);
  repeat(plan.row_last);
  plan.dropped_first.assign(plan.row_last.size(), 0);
  plan.dropped_last.assign(plan.row_last.size(), 0);
}

void Planner::visit_path(int32_t index, const Reservation& reservation) {
  const int64_t begin = reservation.position;
  const int64_t end = begin + reservation.rows;
  Node* new_child = nullptr;
  for (Node* node = reservation.tail; node != nullptr; node = node->parent) {
    Node::Visit& visit = node->visit;
    const bool first_time = !visit.visited;
    if (first_time) {
      visit = {};
      visit.visited = true;
      visit.count = node->computed;
      visited_.push_back(node);
      if (node->is_root()) roots_.push_back(node);
    }
    visit.rows += reservation.rows;
    const int64_t from = std::max(begin, node->start);
    const int64_t to = std::min(end, node->end());
    if (from < to) {
      CHECK(visit.written == 0 && from == node->computed_end());
      visit.count = to - node->start;
      visit.written = static_cast<int32_t>(to - from);
      visit.row_offset = static_cast<int32_t>(from - begin);
    }
    if (new_child != nullptr) {
      (visit.last_child != nullptr ? visit.last_child->visit.next_sibling : visit.first_child) =
          new_child;
      visit.last_child = new_child;
    }
    new_child = first_time ? node : nullptr;
  }
  reservation.tail->visit.reservation = index;
}

void Planner::enter(Node* node, Step& step) {
  const Node::Visit& visit = node->visit;
  const int32_t row_begin = static_cast<int32_t>(step.tokens.size());
  if (partition_ == Partition::kTwoPhase && visit.count > 0) {
    std::vector<ops::Segment>& segments = step.plan.segments;
    const int32_t row_end = row_begin + visit.rows;
    // The same rows as the segment before: a link of the same chain.
    if (segments.empty() || segments.back().row_begin != row_begin ||
        segments.back().row_end != row_end || segments.back().dropped) {
      const int32_t part = static_cast<int32_t>(step.plan.parts.size());
      segments.push_back({row_begin, row_end, part, part});
    }
    segments.back().part_end = emit_part(node, row_begin, step) + 1;
  }
  if (visit.reservation < 0) return;
  if (partition_ == Partition::kPerSequence) emit_path(node, step);
  emit_slice(reservations_[static_cast<size_t>(visit.reservation)], step);
}

void Planner::emit_path(Node* tail, Step& step) {
  const int32_t row_begin = static_cast<int32_t>(step.tokens.size());
  path_.clear();
  for (Node* node = tail; node != nullptr; node = node->parent) {
    if (node->visit.count > 0) path_.push_back(node);
  }
  const int32_t rows = reservations_[static_cast<size_t>(tail->visit.reservation)].rows;
  const int32_t part = static_cast<int32_t>(step.plan.parts.size());
  step.plan.segments.push_back({row_begin, row_begin + rows, part, part});
  for (auto node = path_.rbegin(); node != path_.rend(); ++node) emit_part(*node, row_begin, step);
  step.plan.segments.back().part_end = static_cast<int32_t>(step.plan.parts.size());
}

int32_t Planner::emit_part(Node* node, int32_t row_begin, Step& step) {
  Node::Visit& visit = node->visit;
  const int32_t part = static_cast<int32_t>(step.plan.parts.size());
  ops::KvPart& out = step.plan.parts.emplace_back();
  if (node->tier != nullptr) {
    const GatedRun& run = *node->gated;
    out.pages = run.kept.data();
    out.page_stride = run.kept.stride();
    out.starts = run.starts.data();
    out.counts = visit.written > 0 ? run.counts.data() : run.inner.data();
    visit.part = part;
    return part;
  }
  out.pages = node->pages.data();
  out.page_stride = node->pages.stride();
  out.start = static_cast<int32_t>(node->start);
  out.count = static_cast<int32_t>(visit.count);
  // Whoever writes here is the only one with rows below, so its slice begins the node's rows.
  const int32_t first_slot = static_cast<int32_t>(node->start + visit.count) - visit.written;
  for (int32_t i = 0; i < visit.written; ++i) {
    step.plan.targets[static_cast<size_t>(row_begin + visit.row_offset + i)] = {part,
                                                                                first_slot + i};
  }
  return part;
}

void Planner::emit_slice(const Reservation& reservation, Step& step) {
  const int32_t row_begin = static_cast<int32_t>(step.tokens.size());
  step.slices.push_back(
      {reservation.sequence, row_begin, row_begin + reservation.rows, reservation.position});
  if (reservation.tail->tier != nullptr) emit_gated_rows(reservation, step);
  for (int32_t i = 0; i < reservation.rows; ++i) {
    const int32_t position = static_cast<int32_t>(reservation.position) + i;
    step.tokens.push_back(reservation.tokens[static_cast<size_t>(i)] & ~kExactToken);
    step.positions.push_back(position);
    step.plan.row_last[static_cast<size_t>(row_begin + i)] = position + 1;
  }
}

// The slice's dropped list, and where its tokens go; the cache fills in the lists.
void Planner::emit_gated_rows(const Reservation& reservation, Step& step) {
  const int32_t row_begin = step.slices.back().row_begin, row_end = step.slices.back().row_end;
  Node* node = reservation.tail;
  while (node->visit.written == 0) node = node->parent;
  const GatedRun& run = *node->gated;
  const int32_t part = static_cast<int32_t>(step.plan.parts.size());
  ops::KvPart& out = step.plan.parts.emplace_back();
  out.pages = run.dropped.data();
  out.page_stride = run.dropped.stride();
  out.starts = run.dropped_starts.data();
  out.counts = run.dropped_counts.data();
  step.plan.segments.push_back({row_begin, row_end, part, part + 1, true});
  ops::GateRows& rows = step.gate.rows.emplace_back();
  rows.row_begin = row_begin;
  rows.row_end = row_end;
  rows.position = reservation.position;
  rows.rule = node->tier->rule;
  rows.kept_part = node->visit.part;
  rows.dropped_part = part;
  gated_nodes_.push_back(node);
}

}  // namespace coppice::kv
