// What:    forests of key-value pages and every plan that may be made of them, for tests and
//          benchmarks of attention: what the cache's planner makes, and what it never would.
// Owns:    a Forest its arena and page lists; a CasePlan the arrays its parts point to.
// Threads: one.
// Fails:   running out of the pages asked for is a CHECK.
#pragma once

#include <deque>
#include <optional>
#include <random>
#include <vector>

#include "ops/backend.h"

namespace coppice::ops {

// A run of slots below `parent` (-1: a root). It starts at a page border of every list: where the
// path above ends inside a page, its first page begins with a copy of that page's slots.
struct ForestNode {
  int32_t parent = -1;
  bool dropped = false;         // the dropped slots of a sequence: in no tree
  std::vector<int32_t> starts;  // [lists]
  std::vector<int32_t> counts;  // [lists] with what is copied
  std::vector<int32_t> copied;  // [lists]
  std::vector<PageId> pages;    // [lists][page_stride], padded with the forest's foreign page
  int32_t page_stride = 0;
  std::vector<int32_t> children;
};

// What a gate made of a sequence's rows: every bound [lists][rows], ascending along the rows.
struct ForestGate {
  int32_t dropped = 0;                 // the node of its dropped slots
  std::vector<int32_t> last;           // of the path's slots, from 0
  std::vector<int32_t> dropped_first;  // of the dropped ones
  std::vector<int32_t> dropped_last;
};

// The last `rows` slots of the path to `node` are this sequence's rows of the step; each sees what
// lies before it and itself, or what its gate says.
struct ForestSequence {
  int32_t node = 0;
  int32_t rows = 1;
  std::optional<ForestGate> gate;
};

struct CasePlan {
  AttentionPlan plan;
  std::vector<int32_t> row_of;  // [sequences] first row
  std::deque<std::vector<int32_t>> arrays;
};

struct PlanStyle {
  bool per_sequence = false;     // no row of one sequence is in a segment with another's
  bool cut_parts = false;        // nodes cut at random page borders, rows of segments cut at random
  bool shuffle = false;          // children and sequences in random order
  bool per_list_bounds = false;  // row_stride T even where all lists are equal
  int32_t dropped_shift = 0;     // added to the numbers of all dropped slots: a multiple of P
};

class Forest {
 public:
  // memory: at least pages * layout.page_bytes. The last page is foreign: in no list but as
  // padding.
  Forest(const KvLayout& layout, std::byte* memory, int32_t pages, int32_t lists);

  // counts [lists], or one count for all: of new slots, besides what is copied.
  int32_t add_node(int32_t parent, std::vector<int32_t> counts);
  // starts [lists]: multiples of P.
  int32_t add_dropped(std::vector<int32_t> starts, std::vector<int32_t> counts);
  void add_sequence(int32_t node, int32_t rows) { sequences_.push_back({node, rows, {}}); }
  void add_gated_sequence(int32_t node, int32_t rows, ForestGate gate) {
    sequences_.push_back({node, rows, std::move(gate)});
  }

  const KvArena& arena() const { return arena_; }
  int32_t lists() const { return lists_; }
  PageId foreign_page() const { return pages_ - 1; }
  const std::vector<ForestNode>& nodes() const { return nodes_; }
  const std::vector<ForestSequence>& sequences() const { return sequences_; }
  std::vector<int32_t> path(int32_t node) const;  // node ids, root first
  int32_t path_slots(int32_t node, int32_t list) const;
  KvPart part(int32_t node) const;

  CasePlan plan(int32_t kv_heads, const PlanStyle& style, std::mt19937& random) const;

 private:
  struct Maker;
  int32_t add_pages(ForestNode node);
  KvArena arena_;
  int32_t pages_, lists_;
  PageId next_page_ = 0;
  std::vector<ForestNode> nodes_;
  std::vector<ForestSequence> sequences_;
};

}  // namespace coppice::ops
