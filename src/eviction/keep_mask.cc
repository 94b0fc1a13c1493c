#include "eviction/keep_mask.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"

namespace coppice::eviction {
namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool is_protected(int32_t token, int32_t tokens, const Protection& protection) {
  return token < protection.sinks || token >= tokens - protection.window;
}

KeepMask protected_only(int32_t lists, int32_t tokens, const Protection& protection) {
  KeepMask mask(lists, tokens, 0);
  for (int32_t i = 0; i < lists; ++i) {
    for (int32_t t = 0; t < tokens; ++t) mask.list(i)[t] = is_protected(t, tokens, protection);
  }
  return mask;
}

}  // namespace

int32_t KeepMask::kept(int32_t i) const {
  const auto flags = list(i);
  return static_cast<int32_t>(std::count(flags.begin(), flags.end(), 1));
}

int64_t KeepMask::pages(int32_t page_slots) const {
  int64_t sum = 0;
  for (int32_t i = 0; i < lists; ++i) sum += divide_up(kept(i), page_slots);
  return sum;
}

double KeepMask::held_share(int32_t page_slots) const {
  const int64_t whole = lists * divide_up(tokens, page_slots);
  return static_cast<double>(pages(page_slots)) / static_cast<double>(whole);
}

double KeepMask::kept_share() const {
  const auto kept = std::accumulate(keep.begin(), keep.end(), int64_t{0});
  return static_cast<double>(kept) / static_cast<double>(keep.size());
}

Budget make_budget(double share, int32_t lists, int32_t tokens, int32_t page_slots,
                   const Protection& protection) {
  CHECK(share > 0 && share <= 1 && lists > 0 && tokens > 0 && page_slots > 0);
  constexpr double kRounding = 1e-9;  // 0.57 * 100 is less than 57
  const int64_t whole = divide_up(tokens, page_slots);
  const int64_t least = divide_up(
      std::min<int64_t>(tokens, int64_t{protection.sinks} + protection.window), page_slots);
  const auto wanted = static_cast<int64_t>(share * static_cast<double>(lists * whole) + kRounding);
  return {.pages = std::max(lists * least, wanted),
          .lists = lists,
          .page_slots = page_slots,
          .protection = protection};
}

KeepMask keep_best(std::span<const float> scores, int32_t tokens, const Budget& budget,
                   const Competition& competition) {
  const int32_t lists = budget.lists;
  CHECK(std::ssize(scores) == int64_t{lists} * tokens && lists % competition.group == 0);
  KeepMask mask = protected_only(lists, tokens, budget.protection);
  std::vector<int32_t> order(scores.size());
  std::iota(order.rbegin(), order.rend(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  std::vector<int64_t> kept(static_cast<size_t>(lists)), sure(kept), room(kept);  // room: of groups
  for (int32_t i = 0; i < lists; ++i) {
    const auto at = static_cast<size_t>(i);
    kept[at] = mask.kept(i);
    sure[at] = static_cast<int64_t>(
        std::ceil(competition.floor * static_cast<double>(budget.pages_of(i))));
    room[static_cast<size_t>(i / competition.group)] +=
        budget.pages_of(i) - divide_up(kept[at], budget.page_slots);
  }
  // First what every list is sure of, then what its group has left.
  for (const bool competing : {false, true}) {
    for (const int32_t index : order) {
      uint8_t& flag = mask.keep[static_cast<size_t>(index)];
      if (flag != 0) continue;
      const auto list = static_cast<size_t>(index / tokens);
      int64_t& left = room[list / static_cast<size_t>(competition.group)];
      // The token opens a page where the last one is full; a list without room is passed over.
      const bool opens = kept[list] % budget.page_slots == 0;
      if (!competing && divide_up(kept[list] + 1, budget.page_slots) > sure[list]) continue;
      if (opens && left <= 0) continue;
      flag = 1;
      ++kept[list];
      left -= opens ? 1 : 0;
    }
  }
  return mask;
}

KeepMask keep_lists(std::span<const int32_t> order, int32_t tokens, const Budget& budget) {
  const auto lists = static_cast<int32_t>(order.size());
  CHECK(lists == budget.lists);
  KeepMask mask = protected_only(lists, tokens, budget.protection);
  int64_t left = budget.pages - mask.pages(budget.page_slots);
  for (const int32_t list : order) {
    const auto flags = mask.list(list);
    const int64_t before = divide_up(mask.kept(list), budget.page_slots);
    int64_t slots = (before + left) * budget.page_slots - mask.kept(list);
    if (left == 0) break;
    for (int32_t t = tokens - 1; t >= 0 && slots > 0; --t) {
      slots -= flags[t] == 0 ? 1 : 0;
      flags[t] = 1;
    }
    left -= divide_up(mask.kept(list), budget.page_slots) - before;
  }
  return mask;
}

KeepMask keep_recent(int32_t tokens, const Budget& budget, bool sinks) {
  KeepMask mask(budget.lists, tokens, 0);
  for (int32_t list = 0; list < budget.lists; ++list) {
    const auto slots =
        static_cast<int32_t>(std::min<int64_t>(tokens, budget.pages_of(list) * budget.page_slots));
    const int32_t first = sinks ? std::min(slots, budget.protection.sinks) : 0;
    const auto flags = mask.list(list);
    for (int32_t t = 0; t < tokens; ++t) {
      flags[t] = is_protected(t, tokens, {.sinks = first, .window = slots - first});
    }
  }
  return mask;
}

}  // namespace coppice::eviction
