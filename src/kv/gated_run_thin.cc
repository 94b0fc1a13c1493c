// Thinning: a run gives back the kept slots that the gate found least likely to be needed.
#include <algorithm>
#include <array>
#include <numeric>

#include "base/check.h"
#include "kv/gated_run.h"

namespace coppice::kv {
namespace {

constexpr size_t kBytes = 256;  // values of a keep byte

// Of slots that are looked at in order, the least likely ones: all below `byte`, and the first
// `ties` that equal it.
struct Cut {
  int32_t byte = 0;
  int64_t ties = 0;
  bool takes_tie(uint8_t keep) { return keep == byte && ties > 0 && ties-- > 0; }
};

// The first `count` of the slots that are counted by their bytes, as sorting would find them.
template <class Count>
Cut cut_after(std::span<const Count> counts, int64_t count) {
  int32_t byte = 0;
  for (; byte < static_cast<int32_t>(kBytes) && count > counts[static_cast<size_t>(byte)]; ++byte) {
    count -= counts[static_cast<size_t>(byte)];
  }
  return {byte, count};
}

}  // namespace

// Counts the run's slots in each list and finds where the last page begins, which stays open.
// Returns how many lie before.
int64_t GatedRuns::find_closed(const GatedRun& run) {
  const size_t lists = run.size();
  const int64_t held = std::ssize(run.keep) / lists_;
  own_.assign(lists, 0);
  for (int64_t t = 0; t < held; ++t) {
    const uint8_t* keep = run.keep.data() + t * lists_;
    for (size_t i = 0; i < lists; ++i) own_[i] += ops::holds_slot(keep[i]) ? 1 : 0;
  }
  open_.resize(lists);
  closed_.assign(lists, held);
  int64_t closed = 0, open = 0;
  for (size_t i = 0; i < lists; ++i) {
    open_[i] = std::min(own_[i], run.counts[i] - run.inner[i]);
    closed += own_[i] - open_[i];
    open += open_[i];
  }
  for (int64_t t = held; open > 0;) {
    const uint8_t* keep = run.keep.data() + --t * lists_;
    for (size_t i = 0; i < lists; ++i) {
      if (open_[i] == 0 || !ops::holds_slot(keep[i])) continue;
      --open_[i];
      --open;
      closed_[i] = t;
    }
  }
  return closed;
}

// Marks what goes: of all lists together the less likely half of the slots on pages that the run
// closes, of equals the oldest token's, of a token's the first list's; then to the nearest whole
// page in each list. Returns the slots. Counting bytes finds what sorting would, without a branch
// that depends on a slot's byte more than now and then: a step waits for this.
int64_t GatedRuns::choose_thinned(GatedRun& run, int64_t tokens, std::span<int32_t> gone) {
  const size_t lists = run.size();
  const int64_t closed = find_closed(run);
  const int64_t end = std::min(std::ssize(run.keep) / lists_, tokens);
  const auto each = [&](const auto& visit) {  // byte before a list's open page, in order
    for (int64_t t = 0; t < end; ++t) {
      uint8_t* keep = run.keep.data() + t * lists_;
      for (size_t i = 0; i < lists; ++i) {
        if (t < closed_[i]) visit(i, keep[i]);
      }
    }
  };
  may_.assign(lists * kBytes, 0);
  each([&](size_t i, uint8_t keep) { ++may_[i * kBytes + keep]; });
  std::array<int64_t, kBytes> all{};
  for (size_t i = 0; i < lists; ++i) {
    int32_t* may = may_.data() + i * kBytes;
    may[ops::kDroppedByte] = may[ops::kThinnedByte] = may[ops::kProtectedByte] = 0;
    for (size_t byte = 0; byte < kBytes; ++byte) all[byte] += may[byte];
  }
  Cut half = cut_after(std::span<const int64_t>(all), closed / 2);
  for (size_t i = 0; i < lists; ++i) {
    const int32_t* may = may_.data() + i * kBytes;
    gone[i] = std::accumulate(may, may + half.byte, 0);
  }
  each([&](size_t i, uint8_t keep) { gone[i] += half.takes_tie(keep) ? 1 : 0; });

  int64_t slots = 0;
  std::vector<Cut> cuts(lists);
  for (size_t i = 0; i < lists; ++i) {
    const std::span<const int32_t> may = std::span(may_).subspan(i * kBytes, kBytes);
    const int32_t most = std::accumulate(may.begin(), may.end(), 0);
    const int32_t nearest = (gone[i] + page_slots_ / 2) / page_slots_ * page_slots_;
    slots += gone[i] = std::min(nearest, most / page_slots_ * page_slots_);
    cuts[i] = cut_after(may, gone[i]);
  }
  each([&](size_t i, uint8_t& keep) {
    const bool below = ops::holds_slot(keep) & (keep < cuts[i].byte);
    const int goes = below | cuts[i].takes_tie(keep);
    const auto stays = static_cast<uint8_t>(goes - 1);  // all bits, or none
    keep = static_cast<uint8_t>((keep & stays) | (ops::kThinnedByte & ~stays));
  });
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
