// What:    the tree flattened for a kernel: which query rows read which runs of KV pages, in which
// order. Owns:    its arrays; the page lists belong to the tree's nodes and must outlive the step.
// Threads: written by the planner, then read by any number of workers.
// Fails:   never; a plan is plain data.
//
//   rows of the step (sequences in depth-first leaf order, a sequence's rows contiguous and
//   ascending)
//     r0 r1 | r2 | r3 r4 r5          segments:  [0,6) x company prompt
//     \_____ _____/   \__ __/                   [0,3) x team A            (its children's rows:
//     [0,3))
//        team A       team B                    [0,2) x leaf 0,  [2,3) x leaf 1
//                                               [3,6) x team B, leaf 2    (a chain is one segment)
//
// Invariants a kernel may rely on
//   1. For every row, the segments that contain it, in plan order, cover its path from slot 0
//   upward
//      without gap or overlap, so an attention state per row, carried from segment to segment, is
//      all that is needed.
//   2. A part starts at a multiple of P; all but the last part of a row's path hold a multiple of P
//   slots.
//   3. Slots at and beyond a row's `last` are never visible to it, though their page may exist.
//   4. A gated row (gate_plan.h) has one more segment, after all its others, marked `dropped`: its
//      part holds the row's dropped list, in slots of that list's own counting, of which it sees
//      [dropped_first, dropped_last). Invariants 1 to 3 speak of its kept list.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace coppice::ops {

using PageId = int32_t;  // index into the page pool's arena

// The run of slots that one tree node adds to the paths through it, for every (layer, KV head).
// "List" = layer * kv_heads + kv_head.
struct KvPart {
  const PageId* pages = nullptr;  // [lists][page_stride]; list i begins at pages + i * page_stride
  int32_t page_stride = 0;
  const int32_t* starts = nullptr;  // [lists] first slot, or null: `start` for every list
  const int32_t* counts = nullptr;  // [lists] slots held, or null: `count` for every list
  int32_t start = 0;
  int32_t count = 0;

  const PageId* list_pages(int32_t list) const {
    return pages + static_cast<int64_t>(list) * page_stride;
  }
  int32_t list_start(int32_t list) const { return starts != nullptr ? starts[list] : start; }
  int32_t list_count(int32_t list) const { return counts != nullptr ? counts[list] : count; }
  bool operator==(const KvPart&) const = default;
};

// Rows [row_begin, row_end) all read parts [part_begin, part_end), in this order.
struct Segment {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int32_t part_begin = 0;
  int32_t part_end = 0;
  bool dropped = false;  // slots of the dropped list: all of them are one range of the fold
  bool operator==(const Segment&) const = default;
};

// Where a row's own key and value go: slot `slot` (counted along the path) inside parts[part].
struct KvTarget {
  int32_t part = 0;
  int32_t slot = 0;
  bool operator==(const KvTarget&) const = default;
};

struct AttentionPlan {
  int32_t rows = 0;               // T
  int32_t kv_heads = 0;           // Hkv: list = layer * kv_heads + head
  std::vector<Segment> segments;  // depth-first, parents before children
  std::vector<KvPart> parts;
  std::vector<KvTarget> targets;  // target_stride 0: [T], the same for every list; T: [lists][T]
  int32_t target_stride = 0;
  // A row sees slots [first, last) of its path. row_stride 0: [T], the same for every list;
  // row_stride T: [lists][T].
  std::vector<int32_t> row_first;
  std::vector<int32_t> row_last;
  int32_t row_stride = 0;
  // [lists][T] where some row is gated (the others see none: first == last), else empty.
  std::vector<int32_t> dropped_first;
  std::vector<int32_t> dropped_last;

  bool gated() const { return !dropped_first.empty(); }
  const KvTarget& target(int32_t list, int32_t row) const {
    return targets[index(list, row, target_stride)];
  }
  int32_t first(int32_t list, int32_t row) const { return row_first[index(list, row, row_stride)]; }
  int32_t last(int32_t list, int32_t row) const { return row_last[index(list, row, row_stride)]; }
  // Of a gated plan.
  int32_t first_dropped(int32_t list, int32_t row) const {
    return dropped_first[index(list, row, rows)];
  }
  int32_t last_dropped(int32_t list, int32_t row) const {
    return dropped_last[index(list, row, rows)];
  }
  bool operator==(const AttentionPlan&) const = default;

  static size_t index(int32_t list, int32_t row, int32_t stride) {
    return static_cast<size_t>(static_cast<int64_t>(list) * stride + row);
  }
};

}  // namespace coppice::ops
