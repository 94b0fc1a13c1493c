// What:    turns the rows reserved in a step and the tree above them into the plan that kernels
// read. Owns:    nothing but scratch; the plan is the caller's. Threads: one. Fails:   never.
//
// Two-phase: one part per node that has rows below it, one segment per chain of nodes with the same
// rows (ChunkAttention 3.2: chunk-first over what sequences share, sequence-first over the rest).
// Per sequence: one segment per sequence, its path's parts repeated. With nothing shared in the
// step the two are equal, byte for byte.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kv/kv_cache.h"
#include "kv/node.h"

namespace coppice::kv {

// Rows of one sequence: positions [position, position + rows) of the path to `tail`.
struct Reservation {
  SequenceId sequence = 0;
  Node* tail = nullptr;
  std::span<const TokenId> tokens;  // the rows'
  int64_t position = 0;
  int32_t rows = 0;
};

class Planner {
 public:
  explicit Planner(int32_t lists = 1) : lists_(lists) {}

  // Fills `step`; reservations of different sequences never write the same node. One pass over the
  // nodes with rows below them; allocates only until the vectors have grown.
  void plan(std::span<const Reservation> reservations, Partition partition, int32_t kv_heads,
            Step& step);
  // The nodes that the gated rows are written to, in the order of step.gate.rows.
  std::span<Node* const> gated_nodes() const { return gated_nodes_; }

 private:
  void visit_path(int32_t index, const Reservation& reservation);
  void enter(Node* node, Step& step);
  void emit_path(Node* tail, Step& step);
  int32_t emit_part(Node* node, int32_t row_begin, Step& step);
  void emit_slice(const Reservation& reservation, Step& step);
  void emit_gated_rows(const Reservation& reservation, Step& step);
  void widen_bounds(Step& step) const;

  int32_t lists_;  // L * Hkv
  std::span<const Reservation> reservations_;
  Partition partition_ = Partition::kTwoPhase;
  std::vector<Node*> roots_;  // with rows below, in the order of their first reservation
  std::vector<Node*> visited_;
  std::vector<Node*> path_;
  std::vector<Node*> gated_nodes_;
};

}  // namespace coppice::kv
