// What:    what a node of a gated scope holds: kept and dropped slots per (layer, KV head) list,
// the
//          decisions of its tokens, and at its end what a continuation needs (the overlay).
// Owns:    its page ids; pages are the pool's, and may have other holders.
// Threads: one.
// Fails:   taking pages beyond the pool's room is a CHECK.
//
//   tokens     [ ............... run ............... ]      a node; boundaries are its ends
//   kept       | p0 ...... | p1 ...... | p2 ..     of every list, slots counted along the path;
//                 ^ the parent's last slots: its partial page, shared where nobody else has
//                   continued it, else copied
//   dropped    while it is written, working: the slots that its next row may still see, on the
//              pages of the dropped list's own grid (what kernels read);
//              at rest, the overlay: just those slots, packed from the first slot of a page
//   nothing    at a boundary whose overlay was freed: no request can start there
//   thinned    kept slots on pages that the run closes are given back by whole pages: what is below
//              keeps its place inside its pages, and its slots count from less
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "kv/page_pool.h"
#include "kv/page_rows.h"
#include "ops/gate_plan.h"

namespace coppice::kv {

struct GatedRun {
  explicit GatedRun(int32_t n)
      : lists(n),
        starts(size()),
        counts(size()),
        inner(size()),
        borrowed(size()),
        dropped_starts(size()),
        dropped_counts(size()),
        visible(size()),
        kept(n),
        dropped(n),
        positions(size()) {}

  size_t size() const { return static_cast<size_t>(lists); }
  int32_t kept_end(int32_t list) const { return starts[at(list)] + counts[at(list)]; }
  int32_t dropped_end(int32_t list) const {
    return dropped_starts[at(list)] + dropped_counts[at(list)];
  }
  int64_t memory_bytes() const { return std::ssize(memory) * int64_t{sizeof(float)}; }
  static size_t at(int32_t list) { return static_cast<size_t>(list); }

  enum class Tail { kWorking, kOverlay, kNone };

  int32_t lists;
  Tail tail = Tail::kWorking;
  std::vector<int32_t> starts, counts;  // [lists] of kept slots; starts are multiples of P
  std::vector<int32_t> inner;           // [lists] of counts, what lies on pages that the run closes
  std::vector<uint8_t> borrowed;        // [lists] 1: the first page counts as an ancestor's
  std::vector<int32_t> dropped_starts, dropped_counts;  // [lists]
  std::vector<int32_t> visible;                         // [lists] working: as in ops::GateList
  PageRows kept, dropped;
  std::vector<std::vector<int32_t>> positions;  // [lists] working: of the dropped slots
  std::vector<uint8_t> keep;                    // [tokens][lists] ops::keep_byte
  std::vector<float> memory;                    // of the gate, at the end
  std::vector<ops::PageId> stock;               // taken for the step under way
  std::vector<int32_t> stock_begin;             // [lists + 1]
  int64_t owned = 0;                            // pages held, without the borrowed ones
  int64_t charged = 0;                          // bytes
  int32_t reserved = 0;                         // rows of the step under way
};

// The operations on runs that move pages.
class GatedRuns {
 public:
  GatedRuns(PagePool& pool, int32_t lists)
      : pool_(pool), lists_(lists), page_slots_(pool.page_slots()) {}

  // Pages that start(parent) takes; parent null: the root.
  int64_t pages_to_start(const GatedRun* parent) const;
  // The run of a node below `parent`, whose tail is an overlay. dropped_at(list, n): positions of
  // the last n tokens dropped, ascending.
  using DroppedPositions = std::function<void(int32_t list, std::span<int32_t> out)>;
  std::unique_ptr<GatedRun> start(const GatedRun* parent, int64_t memory_floats,
                                  const DroppedPositions& dropped_at);

  // Pages that any decision of so many rows can need; of a run that is to be started: pass null and
  // its parent.
  int64_t pages_for(const GatedRun* run, const GatedRun* parent, int32_t rows) const;
  void stock_up(GatedRun& run, int32_t rows);
  // Fills lists [lists] for a slice of `rows` tokens; keep [lists][rows] is where decisions go.
  void describe(GatedRun& run, int32_t rows, std::span<ops::GateList> lists, uint8_t* keep);
  // The rows' keys and values are in their pages, as the lists say.
  void commit(GatedRun& run, int32_t rows, std::span<const ops::GateList> lists);
  // They are not: counts [lists] as they were.
  void abandon(GatedRun& run, int32_t rows, std::span<const int32_t> counts,
               std::span<const int32_t> dropped_counts);

  // Working tail -> overlay for whoever starts at `position`. Takes no page.
  void pack(GatedRun& run, int64_t position, int32_t window);
  void drop_overlay(GatedRun& run);
  // Gives back about half of the slots on the pages that the run closes, the least likely first, of
  // its first `tokens` tokens; none that is protected. gone [lists]: slots given back, multiples of
  // P, by which runs below move down. Returns the pages; takes none.
  int64_t thin(GatedRun& run, int64_t tokens, std::span<int32_t> gone);
  // `run`, whose overlay was freed, gets that of a run with the same end.
  void move_overlay(GatedRun& from, GatedRun& run);
  // Takes the first `tokens` tokens off; they are held elsewhere.
  void cut_front(GatedRun& run, int64_t tokens);
  void release(GatedRun& run);

 private:
  int32_t columns(int32_t slots) const { return (slots + page_slots_ - 1) / page_slots_; }
  // Whether a child's first kept page is the parent's last, to be written on.
  bool can_share(const GatedRun& parent, int32_t list) const;
  struct Rooms {
    int32_t kept = 0, dropped = 0;
  };
  Rooms rooms(const GatedRun* run, const GatedRun* parent, int32_t list) const;
  void move_dropped(const GatedRun& from, GatedRun& to, int32_t list, int32_t from_first,
                    int32_t to_first, int32_t begin, int32_t end);
  int64_t find_closed(const GatedRun& run);
  int64_t choose_thinned(GatedRun& run, int64_t tokens, std::span<int32_t> gone);
  void close_gaps(GatedRun& run, int32_t list, int32_t first);
  void move_kept(GatedRun& run, int32_t list, int32_t from, int32_t to, int32_t slots);
  void give_back(GatedRun& run, int32_t list, std::span<const ops::PageId> ids, bool first_kept);
  void give_back_dropped(GatedRun& run, int32_t list, int32_t from, int32_t to);
  void charge(GatedRun& run, int64_t bytes);

  PagePool& pool_;
  const int32_t lists_;
  const int32_t page_slots_;
  std::vector<ops::PageId> scratch_;
  // Of thin().
  std::vector<uint8_t> keep_;        // the run's decisions before
  std::vector<int32_t> own_, open_;  // [lists] slots of the run; of them, those on the open page
  std::vector<int64_t> closed_;      // [lists] leading tokens, whose slots lie on closed pages
  std::vector<int32_t> may_;         // [lists][256] slots that may go, by their keep byte
};

}  // namespace coppice::kv
