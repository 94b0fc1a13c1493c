// What:    forests of key-value pages and every plan that may be made of them, for tests and
//          benchmarks of attention: what the cache's planner makes, and what it never would.
// Owns:    a Forest its arena and page lists; a CasePlan the arrays its parts point to.
// Threads: one.
// Fails:   running out of the pages asked for is a CHECK.
#pragma once

#include <deque>
#include <random>
#include <vector>

#include "ops/backend.h"

namespace coppice::ops {

// A run of slots below `parent` (-1: a root); counts [lists]. All but leaves hold whole pages.
struct ForestNode {
  int32_t parent = -1;
  std::vector<int32_t> starts;  // [lists] slots above it on its path
  std::vector<int32_t> counts;  // [lists]
  std::vector<PageId> pages;    // [lists][page_stride], padded with the forest's foreign page
  int32_t page_stride = 0;
  std::vector<int32_t> children;
};

// The last `rows` slots of the path to `node` are this sequence's rows of the step; each sees what
// lies before it and itself.
struct ForestSequence {
  int32_t node = 0;
  int32_t rows = 1;
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
};

class Forest {
 public:
  // memory: at least pages * layout.page_bytes. The last page is foreign: in no list but as
  // padding.
  Forest(const KvLayout& layout, std::byte* memory, int32_t pages, int32_t lists);

  // counts [lists], or one count for all.
  int32_t add_node(int32_t parent, std::vector<int32_t> counts);
  void add_sequence(int32_t node, int32_t rows) { sequences_.push_back({node, rows}); }

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
  KvArena arena_;
  int32_t pages_, lists_;
  PageId next_page_ = 0;
  std::vector<ForestNode> nodes_;
  std::vector<ForestSequence> sequences_;
};

}  // namespace coppice::ops
