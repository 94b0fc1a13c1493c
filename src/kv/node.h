// What:    one run of tokens in the prefix tree, with the pages that hold its keys and values.
// Owns:    its children and its page ids (the pages are the pool's).
// Threads: one.
// Fails:   plain data; PrefixTree changes it and keeps the counts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "kv/gated_run.h"
#include "kv/kv_cache.h"
#include "kv/page_table.h"
#include "kv/reclaim.h"

namespace coppice::kv {

struct PinHold {
  PinId id = 0;
  int64_t tokens = 0;  // leading tokens of the path that it covers
};

struct Node {
  explicit Node(int32_t lists) : pages(lists) {}

  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
  int64_t end() const { return start + size(); }  // tokens of the path up to here
  int64_t computed_end() const { return start + computed; }
  bool is_root() const { return parent == nullptr; }
  // Pages that end with the node.
  int64_t held_pages() const {
    return tier == nullptr ? pages.pages() : gated != nullptr ? gated->owned : 0;
  }
  bool has_overlay() const { return gated != nullptr && gated->tail == GatedRun::Tail::kOverlay; }
  bool unpublished() const { return start >= publish_end; }
  // Of a gated scope, and neither can a request start at its end nor is anything below it.
  bool is_tombstone() const {
    return gated != nullptr && gated->tail == GatedRun::Tail::kNone && children.empty();
  }
  // Computed up to where a request may start now: a boundary, or where its writer stands.
  bool can_start() const {
    return gated != nullptr && computed > 0 && gated->tail != GatedRun::Tail::kNone;
  }
  bool complete() const { return computed == size(); }
  // At rest in an elastic scope, and not yet as thin as it gets.
  bool thinnable() const {
    return gated != nullptr && tier->elastic && references() == 0 && !spent &&
           epoch < kMostEpochs && gated->tail != GatedRun::Tail::kWorking;
  }
  int32_t references() const { return live + pinned; }

  Node* parent = nullptr;                       // null: the root of a scope (no tokens)
  std::vector<std::unique_ptr<Node>> children;  // by their first P tokens, then by age
  int64_t start = 0;                            // tokens before the run; ungated: a multiple of P
  std::vector<TokenId> tokens;                  // the run, planned
  int64_t computed = 0;                         // its leading tokens that are in pages
  PageTable pages;                              // of an ungated scope

  // Of a gated scope; the root has its tier too.
  std::shared_ptr<const Tier> tier;
  std::unique_ptr<GatedRun> gated;  // once its first row is reserved
  int64_t publish_end = INT64_MAX;  // nobody else may start in a run from there on, or below it
  int32_t unstarted = 0;            // children that will start from this node's overlay
  uint64_t boundary_used = 0;       // clock: a request started at its end, or it was made
  int32_t epoch = 0;                // how often its run was thinned
  int32_t born = 0;                 // sum of the epochs above when its run was started
  bool spent = false;               // thinning it once more gave nothing back

  SequenceId owner = 0;       // the live sequence whose tail this is
  std::vector<PinHold> pins;  // those whose last token lies here
  int32_t live = 0;           // live sequences on the path through or to this node
  int32_t pinned = 0;         // pins at or below this node
  uint64_t age = 0;           // older is smaller; distinct among siblings
  uint64_t last_used = 0;     // step clock of the last sequence that ended below
  bool page_filled = false;   // its first page was completed and is not yet compared

  // What the tree's totals and its reclaim queue hold for this node (PrefixTree::refresh).
  struct Accounted {
    int64_t tokens = 0;
    int64_t reclaimable_pages = 0;
    int64_t reclaimable_bytes = 0;  // charged
    std::optional<ReclaimQueue::Entry> queued;
    int64_t overlay_pages = 0;
    int64_t overlay_bytes = 0;  // charged for the gate's memory there
    std::optional<OverlayQueue::Entry> overlay;
  } accounted;

  // The planner's, for the step being planned.
  struct Visit {
    bool visited = false;
    int32_t rows = 0;          // of the step, at or below this node
    int32_t reservation = -1;  // the tail's own
    int64_t count = 0;         // slots held once the step has run
    int32_t written = 0;       // rows written here, ...
    int32_t row_offset = 0;    // ... after so many rows of the same slice
    int32_t part = -1;         // of the plan, where a gated slice writes
    Node* first_child = nullptr;
    Node* last_child = nullptr;
    Node* next_sibling = nullptr;
  } visit;
  uint64_t admission_mark = 0;  // the count of owed pages that last saw this node
  int64_t wanted_columns = 0;   // that a reservation under way would add
};

// The node's number of page columns for so many slots.
inline int64_t columns_for(int64_t slots, int32_t page_slots) {
  return (slots + page_slots - 1) / page_slots;
}

}  // namespace coppice::kv
