// Thinning: a run gives back the kept slots that the gate found least likely to be needed.
#include <algorithm>

#include "base/check.h"
#include "kv/gated_run.h"

namespace coppice::kv {
namespace {

// What may go stands in this order: the least likely first, of equals the oldest.
uint64_t order_of(uint8_t keep, int64_t token, int32_t list) {
  return uint64_t{keep} << 56 | static_cast<uint64_t>(token) << 24 | static_cast<uint64_t>(list);
}
int64_t token_of(uint64_t order) { return static_cast<int64_t>(order >> 24 & 0xffffffffu); }
int32_t list_of(uint64_t order) { return static_cast<int32_t>(order & 0xffffffu); }

}  // namespace

// Marks what goes: of all lists together the less likely half of the slots on pages that the run
// closes, then to the nearest whole page in each list. Returns the slots.
int64_t GatedRuns::choose_thinned(GatedRun& run, int64_t tokens, std::span<int32_t> gone) {
  const int64_t held = std::ssize(run.keep) / lists_;
  own_.assign(run.size(), 0);
  may_.assign(run.size(), 0);
  order_.clear();
  for (size_t k = 0; k < run.keep.size(); ++k) {
    if (ops::holds_slot(run.keep[k])) ++own_[k % run.size()];
  }
  int64_t closed = 0;
  std::vector<int32_t>& left = may_;  // own slots that are not on the last, open page
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    left[i] = std::max(0, run.inner[i] - (run.counts[i] - own_[i]));
    closed += left[i];
  }
  for (int64_t t = 0; t < std::min(held, tokens); ++t) {
    for (int32_t list = 0; list < lists_; ++list) {
      const uint8_t keep = run.keep[static_cast<size_t>(t * lists_ + list)];
      if (!ops::holds_slot(keep) || left[GatedRun::at(list)] == 0) continue;
      --left[GatedRun::at(list)];
      if (keep != ops::kProtectedByte) order_.push_back(order_of(keep, t, list));
    }
  }
  std::ranges::sort(order_);
  may_.assign(run.size(), 0);
  const auto half = static_cast<size_t>(closed / 2);
  for (size_t k = 0; k < order_.size(); ++k) {
    const size_t i = GatedRun::at(list_of(order_[k]));
    ++may_[i];
    if (k < half) ++gone[i];
  }
  int64_t slots = 0;
  for (size_t i = 0; i < run.size(); ++i) {
    const int32_t nearest = (gone[i] + page_slots_ / 2) / page_slots_ * page_slots_;
    slots += gone[i] = std::min(nearest, may_[i] / page_slots_ * page_slots_);
    may_[i] = gone[i];
  }
  for (const uint64_t order : order_) {
    int32_t& more = may_[GatedRun::at(list_of(order))];
    if (more == 0) continue;
    --more;
    run.keep[static_cast<size_t>(token_of(order) * lists_ + list_of(order))] = ops::kThinnedByte;
  }
  return slots;
}

void GatedRuns::move_kept(GatedRun& run, int32_t list, int32_t from, int32_t to, int32_t slots) {
  if (from == to) return;
  for (const int32_t end = from + slots; from < end;) {
    const int32_t n =
        std::min({end - from, page_slots_ - from % page_slots_, page_slots_ - to % page_slots_});
    const PageId* pages = run.kept.row(list);
    pool_.backend().copy_slots(pool_.arena(), pages[from / page_slots_], from % page_slots_,
                               pages[to / page_slots_], to % page_slots_, n);
    from += n;
    to += n;
  }
}

// Moves what stays of a list's closed pages together, from its first own slot on.
void GatedRuns::close_gaps(GatedRun& run, int32_t list, int32_t first) {
  int32_t from = first, to = first, stays = 0;  // [from - stays, from) are to go to `to`
  const auto move = [&] {
    move_kept(run, list, from - stays, to, stays);
    to += stays;
    stays = 0;
  };
  for (size_t k = GatedRun::at(list); from < run.inner[GatedRun::at(list)]; k += run.size()) {
    if (!ops::holds_slot(keep_[k])) continue;
    if (ops::holds_slot(run.keep[k])) {
      ++stays;
    } else {
      move();
    }
    ++from;
  }
  move();
}

int64_t GatedRuns::thin(GatedRun& run, int64_t tokens, std::span<int32_t> gone) {
  CHECK(run.tail != GatedRun::Tail::kWorking);
  std::ranges::fill(gone, 0);
  keep_ = run.keep;
  if (choose_thinned(run, tokens, gone) == 0) return 0;
  int64_t pages = 0;
  for (int32_t list = 0; list < lists_; ++list) {
    const size_t i = GatedRun::at(list);
    if (gone[i] == 0) continue;
    close_gaps(run, list, run.counts[i] - own_[i]);
    const int32_t to = (run.inner[i] - gone[i]) / page_slots_, from = run.inner[i] / page_slots_;
    PageId* row = run.kept.row(list);
    // A first page that is an ancestor's too has slots of it, so it is not among these.
    pool_.give_back({row + to, static_cast<size_t>(from - to)});
    std::copy(row + from, row + columns(run.counts[i]), row + to);
    run.counts[i] -= gone[i];
    run.inner[i] -= gone[i];
    pages += from - to;
  }
  run.owned -= pages;
  return pages;
}

}  // namespace coppice::kv
