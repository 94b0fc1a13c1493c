// What:    walks a plan for one item: runs of at most four pages inside one aligned 64-slot tile,
//          in plan order, with the rows that read them.
// Owns:    nothing.
// Threads: one per walk.
// Fails:   never.
#pragma once

#include <array>

#include "ops/cpu/attention_kernel.h"
#include "ops/cpu/kv_pages.h"

namespace coppice::ops::cpu {

inline constexpr int32_t kTilePages = kChunk / kPageSlots;  // 4

struct Tile {
  int32_t row_begin = 0;  // plan rows, inside the item's
  int32_t row_end = 0;
  int32_t slot = 0;   // of the first page; the tile lies inside one multiple of 64
  int32_t range = 0;  // of the fold
  int32_t pages = 0;
  // What the item's packed rows see of the list, kept or dropped, that the tile is of.
  const int32_t* first = nullptr;  // [N]
  const int32_t* last = nullptr;   // [N]
  std::array<const std::byte*, kTilePages> page{};
};

class TileWalk {
 public:
  // rows.first and rows.last of the item's packed rows must be filled, and the dropped ones if the
  // item takes dropped slots.
  TileWalk(const AttentionJob& job, const AttentionItem& item, const AttentionRows& rows);
  // False at the end. Pages that no row of the item's part of a segment sees are left out.
  bool next(Tile& tile);

 private:
  bool enter_segment();
  bool enter_part();
  bool append_page(Tile& tile);

  const AttentionJob& job_;
  const AttentionItem& item_;
  const AttentionRows& rows_;
  int32_t list_;
  size_t segment_ = 0;  // the next one to enter
  int32_t row_begin_ = 0, row_end_ = 0;
  bool dropped_ = false;                              // the segment holds dropped slots
  const int32_t *first_ = nullptr, *last_ = nullptr;  // [N] what the rows see of its list
  int32_t visible_begin_ = 0, visible_end_ = 0;  // by any of these rows, inside the item's slots
  int32_t part_ = 0, part_end_ = 0;              // part_: the next one to enter
  const PageId* pages_ = nullptr;                // of the part being walked
  int32_t slot_ = 0, slot_end_ = 0;              // slot_: of the page at *pages_
};

}  // namespace coppice::ops::cpu
