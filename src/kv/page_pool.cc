#include "kv/page_pool.h"

#include <limits>
#include <ranges>
#include <string>
#include <utility>

#include "base/check.h"

namespace coppice::kv {

Expected<PagePool> PagePool::create(ops::Backend& backend, const ops::KvLayout& layout,
                                    int64_t budget_pages, int64_t max_pages) {
  if (layout.page_bytes <= 0 || layout.page_slots <= 0) {
    return fail(ErrorCode::kInternal, "kv page layout of backend '" + std::string(backend.name()) +
                                          "' has no bytes or no slots");
  }
  if (budget_pages < 0 || max_pages < budget_pages) {
    return fail(ErrorCode::kInvalidArgument,
                "kv budget: largest budget is smaller than the budget");
  }
  if (max_pages > std::numeric_limits<PageId>::max() ||
      max_pages > std::numeric_limits<int64_t>::max() / layout.page_bytes) {
    return fail(ErrorCode::kTooLarge, "kv budget: " + std::to_string(max_pages) + " pages of " +
                                          std::to_string(layout.page_bytes) +
                                          " bytes are more than page ids can name");
  }
  PagePool pool;
  TRY(pool.memory_, backend.allocate(max_pages * layout.page_bytes));
  pool.backend_ = &backend;
  pool.arena_.base = pool.memory_.data();
  pool.arena_.layout = layout;
  pool.budget_ = budget_pages;
  pool.max_ = max_pages;
  return pool;
}

void PagePool::set_budget(int64_t pages) {
  CHECK(pages >= 0 && pages <= max_);
  budget_ = pages;
}

void PagePool::take(std::span<PageId> out) {
  CHECK(static_cast<int64_t>(out.size()) <= room());
  for (PageId& id : out) {
    if (free_.empty()) {
      id = static_cast<PageId>(holders_.size());
      holders_.push_back(1);
    } else {
      id = free_.back();
      free_.pop_back();
      holders_[static_cast<size_t>(id)] = 1;
    }
  }
  taken_ += static_cast<int64_t>(out.size());
  if (!out.empty()) backend_->zero_pages(arena_, out);
}

void PagePool::give_back(std::span<const PageId> ids) {
  // Backwards, so that they are taken again in this order and neighbours stay neighbours.
  for (const PageId id : std::views::reverse(ids)) {
    CHECK(is_held(id));
    if (--holders_[static_cast<size_t>(id)] > 0) continue;
    free_.push_back(id);
    --taken_;
  }
}

void PagePool::share(PageId id) {
  CHECK(is_held(id) && holders(id) < std::numeric_limits<uint16_t>::max());
  ++holders_[static_cast<size_t>(id)];
}

int32_t PagePool::holders(PageId id) const {
  return id >= 0 && static_cast<size_t>(id) < holders_.size() ? holders_[static_cast<size_t>(id)]
                                                              : 0;
}

void PagePool::charge(int64_t bytes) {
  charged_ += bytes;
  CHECK(charged_ >= 0);
}

}  // namespace coppice::kv
