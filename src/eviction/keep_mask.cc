#include "eviction/keep_mask.h"

#include <algorithm>
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
  const int64_t whole = divide_up(tokens, page_slots);
  const int64_t least = divide_up(
      std::min<int64_t>(tokens, int64_t{protection.sinks} + protection.window), page_slots);
  const auto wanted = static_cast<int64_t>(share * static_cast<double>(whole));
  return {
      .pages = lists * std::max(least, wanted), .page_slots = page_slots, .protection = protection};
}

KeepMask keep_best(std::span<const float> scores, int32_t lists, int32_t tokens,
                   const Budget& budget, bool even) {
  CHECK(std::ssize(scores) == int64_t{lists} * tokens);
  KeepMask mask = protected_only(lists, tokens, budget.protection);
  std::vector<int32_t> order(scores.size());
  std::iota(order.rbegin(), order.rend(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return scores[static_cast<size_t>(a)] > scores[static_cast<size_t>(b)];
  });
  std::vector<int64_t> kept(static_cast<size_t>(lists));
  for (int32_t i = 0; i < lists; ++i) kept[static_cast<size_t>(i)] = mask.kept(i);
  int64_t pages = mask.pages(budget.page_slots);
  const int64_t each = budget.pages / lists;
  for (const int32_t index : order) {
    uint8_t& flag = mask.keep[static_cast<size_t>(index)];
    if (flag != 0) continue;
    int64_t& count = kept[static_cast<size_t>(index / tokens)];
    // The token opens a page where the last one is full; a list without room is passed over.
    const bool opens = count % budget.page_slots == 0;
    if (opens && (even ? count / budget.page_slots >= each : pages >= budget.pages)) continue;
    flag = 1;
    ++count;
    pages += opens ? 1 : 0;
  }
  return mask;
}

KeepMask keep_lists(std::span<const int32_t> order, int32_t tokens, const Budget& budget) {
  const auto lists = static_cast<int32_t>(order.size());
  KeepMask mask = protected_only(lists, tokens, budget.protection);
  int64_t pages = mask.pages(budget.page_slots);
  const int64_t whole = divide_up(tokens, budget.page_slots);
  size_t filled = 0;
  for (; filled < order.size(); ++filled) {
    const int64_t more = whole - divide_up(mask.kept(order[filled]), budget.page_slots);
    if (pages + more > budget.pages) break;
    std::ranges::fill(mask.list(order[filled]), uint8_t{1});
    pages += more;
  }
  // Page by page in turn, from the latest token that is not there yet.
  for (bool any = true; any && pages < budget.pages;) {
    any = false;
    for (size_t i = filled; i < order.size() && pages < budget.pages; ++i) {
      const auto flags = mask.list(order[i]);
      const int64_t before = divide_up(mask.kept(order[i]), budget.page_slots);
      const int64_t room = (before + 1) * budget.page_slots - mask.kept(order[i]);
      int64_t added = 0;
      for (int32_t t = tokens - 1; t >= 0 && added < room; --t) {
        if (flags[t] != 0) continue;
        flags[t] = 1;
        ++added;
      }
      any |= added > 0;
      pages += divide_up(mask.kept(order[i]), budget.page_slots) - before;
    }
  }
  return mask;
}

KeepMask keep_recent(int32_t lists, int32_t tokens, const Budget& budget, bool sinks) {
  const auto slots =
      static_cast<int32_t>(std::min<int64_t>(tokens, budget.pages / lists * budget.page_slots));
  const int32_t first = sinks ? std::min(slots, budget.protection.sinks) : 0;
  return protected_only(lists, tokens, {.sinks = first, .window = slots - first});
}

}  // namespace coppice::eviction
