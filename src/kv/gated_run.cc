#include "kv/gated_run.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace coppice::kv {

void GatedRuns::charge(GatedRun& run, int64_t bytes) {
  run.charged += bytes;
  pool_.charge(bytes);
}

// ---- starting

bool GatedRuns::can_share(const GatedRun& parent, int32_t list) const {
  const int32_t count = parent.counts[GatedRun::at(list)];
  return pool_.holders(parent.kept.row(list)[(count - 1) / page_slots_]) == 1;
}

// Slots that are free behind what a run holds, or will hold once it is started.
GatedRuns::Rooms GatedRuns::rooms(const GatedRun* run, const GatedRun* parent, int32_t list) const {
  const auto room = [this](int32_t slots) { return columns(slots) * page_slots_ - slots; };
  const GatedRun* from = run != nullptr ? run : parent;
  if (from == nullptr) return {};
  return {room(from->kept_end(list)), room(from->dropped_end(list))};
}

int64_t GatedRuns::pages_to_start(const GatedRun* parent) const {
  if (parent == nullptr) return 0;
  int64_t pages = 0;
  for (int32_t list = 0; list < lists_; ++list) {
    if (parent->kept_end(list) % page_slots_ != 0 && !can_share(*parent, list)) ++pages;
    const int32_t first = parent->dropped_starts[GatedRun::at(list)];
    pages += columns(parent->dropped_end(list) - first / page_slots_ * page_slots_);
  }
  return pages;
}

std::unique_ptr<GatedRun> GatedRuns::start(const GatedRun* parent, int64_t memory_floats,
                                           const DroppedPositions& dropped_at) {
  auto run = std::make_unique<GatedRun>(lists_);
  run->memory.assign(static_cast<size_t>(memory_floats), 0.0f);
  charge(*run, memory_floats * int64_t{sizeof(float)});
  if (parent == nullptr) return run;
  CHECK(parent->tail == GatedRun::Tail::kOverlay);
  run->memory = parent->memory;
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    const int32_t end = parent->kept_end(list), part = end % page_slots_;
    run->starts[i] = end - part;
    run->counts[i] = part;
    run->kept.widen(1);
    if (part > 0) {
      const ops::PageId last = parent->kept.row(list)[(parent->counts[i] - 1) / page_slots_];
      PageId& page = *run->kept.row(list);
      if (can_share(*parent, list)) {
        pool_.share(page = last);
        run->borrowed[i] = 1;
      } else {
        pool_.take({&page, 1});
        ++run->owned;
        pool_.backend().copy_slots(pool_.arena(), last, 0, page, 0, part);
      }
    }
    const int32_t first = parent->dropped_starts[i], last = parent->dropped_end(list);
    const int32_t aligned = first / page_slots_ * page_slots_;
    const int32_t pages = columns(last - aligned);
    run->dropped_starts[i] = aligned;
    run->dropped_counts[i] = last - aligned;
    run->visible[i] = first;
    run->dropped.widen(pages);
    pool_.take({run->dropped.row(list), static_cast<size_t>(pages)});
    run->owned += pages;
    move_dropped(*parent, *run, list, first, aligned, first, last);
    run->positions[i].resize(static_cast<size_t>(last - aligned));
    dropped_at(list, std::span(run->positions[i]).subspan(static_cast<size_t>(first - aligned)));
  }
  return run;
}

// Copies dropped slots [begin, end); slot s lies at index s - first of either run's row of pages.
void GatedRuns::move_dropped(const GatedRun& from, GatedRun& to, int32_t list, int32_t from_first,
                             int32_t to_first, int32_t begin, int32_t end) {
  for (int32_t slot = begin; slot < end;) {
    const int32_t source = slot - from_first, target = slot - to_first;
    const int32_t run = std::min(
        {end - slot, page_slots_ - source % page_slots_, page_slots_ - target % page_slots_});
    pool_.backend().copy_slots(pool_.arena(), from.dropped.row(list)[source / page_slots_],
                               source % page_slots_, to.dropped.row(list)[target / page_slots_],
                               target % page_slots_, run);
    slot += run;
  }
}

// ---- a step

int64_t GatedRuns::pages_for(const GatedRun* run, const GatedRun* parent, int32_t rows) const {
  int64_t pages = 0;
  for (int32_t list = 0; list < lists_; ++list) {
    const Rooms room = rooms(run, parent, list);
    pages += ops::gate_pages_needed(rows, room.kept, room.dropped, page_slots_);
  }
  return pages;
}

void GatedRuns::stock_up(GatedRun& run, int32_t rows) {
  CHECK(run.tail == GatedRun::Tail::kWorking && run.stock.empty());
  run.stock_begin.assign(1, 0);
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    const Rooms room = rooms(&run, nullptr, list);
    const int32_t pages = ops::gate_pages_needed(rows, room.kept, room.dropped, page_slots_);
    run.stock_begin.push_back(run.stock_begin.back() + pages);
    run.kept.widen(columns(run.counts[i] + rows));
    run.dropped.widen(columns(run.dropped_counts[i] + rows));
    run.positions[i].resize(static_cast<size_t>(run.dropped_counts[i] + rows));
  }
  run.stock.resize(static_cast<size_t>(run.stock_begin.back()));
  pool_.take(run.stock);
  run.owned += std::ssize(run.stock);
  run.reserved = rows;
  charge(run, int64_t{rows} * lists_);
}

void GatedRuns::describe(GatedRun& run, int32_t rows, std::span<ops::GateList> lists,
                         uint8_t* keep) {
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    lists[i] = {.kept_end = run.kept_end(list),
                .dropped_end = run.dropped_end(list),
                .visible = run.visible[i],
                .kept_pages = run.kept.row(list),
                .dropped_pages = run.dropped.row(list),
                .stock = run.stock.data() + run.stock_begin[i],
                .stock_used = 0,
                .stock_size = run.stock_begin[i + 1] - run.stock_begin[i],
                .positions = run.positions[i].data(),
                .keep = keep + int64_t{list} * rows};
  }
}

void GatedRuns::commit(GatedRun& run, int32_t rows, std::span<const ops::GateList> lists) {
  std::vector<ops::PageId>& unused = scratch_;
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    const ops::GateList& state = lists[i];
    CHECK(run.kept_end(list) == state.kept_end && run.dropped_end(list) == state.dropped_end);
    unused.insert(unused.end(), state.stock + state.stock_used, state.stock + state.stock_size);
    run.visible[i] = state.visible;
    run.positions[i].resize(static_cast<size_t>(run.dropped_counts[i]));
    const int32_t gone = (state.visible - run.dropped_starts[i]) / page_slots_;
    give_back_dropped(run, list, 0, gone);
    run.dropped.drop_front(list, gone, columns(run.dropped_counts[i]));
    run.dropped_starts[i] += gone * page_slots_;
    run.dropped_counts[i] -= gone * page_slots_;
    run.positions[i].erase(run.positions[i].begin(),
                           run.positions[i].begin() + int64_t{gone} * page_slots_);
  }
  for (int32_t row = 0; row < rows; ++row) {
    for (const ops::GateList& state : lists) run.keep.push_back(state.keep[row]);
  }
  pool_.give_back(unused);
  run.owned -= std::ssize(unused);
  unused.clear();
  run.stock.clear();
  run.reserved = 0;
}

void GatedRuns::abandon(GatedRun& run, int32_t rows, std::span<const int32_t> counts,
                        std::span<const int32_t> dropped_counts) {
  std::ranges::copy(counts, run.counts.begin());
  std::ranges::copy(dropped_counts, run.dropped_counts.begin());
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    run.positions[i].resize(static_cast<size_t>(run.dropped_counts[i]));
  }
  pool_.give_back(run.stock);
  run.owned -= std::ssize(run.stock);
  run.stock.clear();
  run.reserved = 0;
  charge(run, -int64_t{rows} * lists_);
}

// ---- the tail

void GatedRuns::pack(GatedRun& run, int64_t position, int32_t window) {
  CHECK(run.tail == GatedRun::Tail::kWorking && run.stock.empty());
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    const int32_t first = run.dropped_starts[i], end = run.dropped_end(list);
    int32_t from = run.visible[i];
    while (from < end && position - run.positions[i][static_cast<size_t>(from - first)] >= window) {
      ++from;
    }
    const int32_t held = columns(end - first), packed = columns(end - from);
    if (from > first) move_dropped(run, run, list, first, from, from, end);
    give_back_dropped(run, list, packed, held);
    run.dropped_starts[i] = from;
    run.dropped_counts[i] = end - from;
    run.inner[i] = run.counts[i] / page_slots_ * page_slots_;
  }
  run.tail = GatedRun::Tail::kOverlay;
  // What was room for steps is memory that no budget counts: it goes, capacity and all.
  std::vector<std::vector<int32_t>>(run.size()).swap(run.positions);
  std::vector<ops::PageId>().swap(run.stock);
  std::vector<int32_t>().swap(run.stock_begin);
  PageRows overlay(lists_);
  for (int32_t list = 0; list < lists_; ++list) {
    overlay.widen(columns(run.dropped_counts[GatedRun::at(list)]));
  }
  for (int32_t list = 0; list < lists_; ++list) {
    std::copy_n(run.dropped.row(list), columns(run.dropped_counts[GatedRun::at(list)]),
                overlay.row(list));
  }
  std::swap(run.dropped, overlay);
}

void GatedRuns::drop_overlay(GatedRun& run) {
  CHECK(run.tail == GatedRun::Tail::kOverlay);
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    give_back_dropped(run, list, 0, columns(run.dropped_counts[i]));
    run.dropped_counts[i] = 0;
  }
  charge(run, -run.memory_bytes());
  std::vector<float>().swap(run.memory);
  PageRows none(lists_);
  std::swap(run.dropped, none);
  run.tail = GatedRun::Tail::kNone;
}

void GatedRuns::move_overlay(GatedRun& from, GatedRun& run) {
  CHECK(from.tail == GatedRun::Tail::kOverlay && run.tail == GatedRun::Tail::kNone);
  int64_t pages = 0;
  for (int32_t list = 0; list < lists_; ++list) {
    pages += columns(from.dropped_counts[GatedRun::at(list)]);
  }
  std::swap(run.dropped, from.dropped);
  std::swap(run.dropped_starts, from.dropped_starts);
  std::swap(run.dropped_counts, from.dropped_counts);
  std::swap(run.memory, from.memory);
  std::swap(run.tail, from.tail);
  run.owned += pages;
  from.owned -= pages;
  const int64_t bytes = run.memory_bytes();
  run.charged += bytes;
  from.charged -= bytes;
}

// ---- pages

void GatedRuns::give_back_dropped(GatedRun& run, int32_t list, int32_t from, int32_t to) {
  if (from >= to) return;
  pool_.give_back({run.dropped.row(list) + from, static_cast<size_t>(to - from)});
  run.owned -= to - from;
}

// Kept pages at the front of a list.
void GatedRuns::give_back(GatedRun& run, int32_t list, std::span<const ops::PageId> ids,
                          bool first_kept) {
  pool_.give_back(ids);
  run.owned -= std::ssize(ids);
  uint8_t& borrowed = run.borrowed[GatedRun::at(list)];
  if (first_kept && borrowed != 0 && !ids.empty()) {
    ++run.owned;
    borrowed = 0;
  }
}

void GatedRuns::cut_front(GatedRun& run, int64_t tokens) {
  const auto cut = tokens * lists_;
  CHECK(cut <= std::ssize(run.keep));
  std::vector<int32_t> before(run.size()), all(run.size());
  for (int64_t k = 0; k < std::ssize(run.keep); ++k) {
    if (!ops::holds_slot(run.keep[static_cast<size_t>(k)])) continue;
    const auto list = static_cast<size_t>(k % lists_);
    ++all[list];
    if (k < cut) ++before[list];
  }
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    const int32_t own = run.kept_end(list) - all[i] + before[i];
    const int32_t start = own / page_slots_ * page_slots_;
    const int32_t gone = (start - run.starts[i]) / page_slots_;
    give_back(run, list, {run.kept.row(list), static_cast<size_t>(gone)}, true);
    run.kept.drop_front(list, gone, columns(run.counts[i]));
    run.counts[i] -= start - run.starts[i];
    run.inner[i] -= start - run.starts[i];
    run.starts[i] = start;
  }
  run.keep.erase(run.keep.begin(), run.keep.begin() + cut);
  charge(run, -cut);
}

void GatedRuns::release(GatedRun& run) {
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    const auto pages = static_cast<size_t>(columns(run.counts[i]));
    give_back(run, list, {run.kept.row(list), pages}, true);
    give_back_dropped(run, list, 0, columns(run.dropped_counts[i]));
  }
  pool_.give_back(run.stock);
  run.owned -= std::ssize(run.stock);
  run.stock.clear();
  CHECK(run.owned == 0);
  charge(run, -run.charged);
}

}  // namespace coppice::kv
