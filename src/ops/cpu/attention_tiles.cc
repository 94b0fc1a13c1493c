#include "ops/cpu/attention_tiles.h"

#include <algorithm>
#include <limits>

namespace coppice::ops::cpu {

TileWalk::TileWalk(const AttentionJob& job, const AttentionItem& item, const AttentionRows& rows)
    : job_(job), item_(item), rows_(rows), list_(job.layer * job.plan->kv_heads + item.kv_head) {}

// Finds the next segment with rows of the item that see any slot of it.
bool TileWalk::enter_segment() {
  while (segment_ < job_.plan->segments.size()) {
    const Segment& segment = job_.plan->segments[segment_++];
    row_begin_ = std::max(segment.row_begin, item_.row_begin);
    row_end_ = std::min(segment.row_end, item_.row_end);
    if (row_begin_ >= row_end_) continue;
    dropped_ = segment.dropped;
    if (dropped_ && item_.dropped_range < 0) continue;
    first_ = dropped_ ? rows_.dropped_first : rows_.first;
    last_ = dropped_ ? rows_.dropped_last : rows_.last;
    const int32_t begin = dropped_ ? 0 : item_.slot_begin;
    const int32_t end = dropped_ ? std::numeric_limits<int32_t>::max() : item_.slot_end;
    visible_begin_ = end;
    visible_end_ = begin;
    for (int32_t row = row_begin_; row < row_end_; ++row) {
      const auto i = static_cast<ptrdiff_t>(row - item_.row_begin) * job_.group;
      visible_begin_ = std::min(visible_begin_, first_[i]);
      visible_end_ = std::max(visible_end_, last_[i]);
    }
    visible_begin_ = std::max(visible_begin_, begin);
    visible_end_ = std::min(visible_end_, end);
    if (visible_begin_ >= visible_end_) continue;
    part_ = segment.part_begin;
    part_end_ = segment.part_end;
    return true;
  }
  return false;
}

// Finds the next part of the segment with a visible page.
bool TileWalk::enter_part() {
  while (part_ < part_end_) {
    const KvPart& part = job_.plan->parts[static_cast<size_t>(part_++)];
    const int32_t start = part.list_start(list_);
    const int32_t end = std::min(start + part.list_count(list_), visible_end_);
    const int32_t skipped = std::max(0, visible_begin_ - start) / kPageSlots;
    slot_ = start + skipped * kPageSlots;
    slot_end_ = end;
    if (slot_ >= slot_end_) continue;
    pages_ = part.list_pages(list_) + skipped;
    return true;
  }
  return false;
}

bool TileWalk::append_page(Tile& tile) {
  if (tile.pages == 0) {
    tile.row_begin = row_begin_;
    tile.row_end = row_end_;
    tile.slot = slot_;
    tile.range = dropped_ ? item_.dropped_range : slot_ / kFoldRange;
    tile.first = first_;
    tile.last = last_;
  } else if (slot_ != tile.slot + tile.pages * kPageSlots || slot_ % kChunk == 0) {
    return false;
  }
  tile.page[static_cast<size_t>(tile.pages++)] = job_.arena.page(*pages_++);
  slot_ += kPageSlots;
  return true;
}

bool TileWalk::next(Tile& tile) {
  tile.pages = 0;
  while (true) {
    if (slot_ >= slot_end_ && !enter_part()) {
      if (tile.pages > 0) return true;  // a tile never spans two segments: their rows differ
      do {
        if (!enter_segment()) return false;
      } while (!enter_part());
    }
    if (!append_page(tile)) return true;
  }
}

}  // namespace coppice::ops::cpu
