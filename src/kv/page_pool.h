// What:    the memory of the cache: pages by id, handed out zeroed, within a budget.
// Owns:    the arena (one backend buffer, address space for the largest budget), the free ids.
// Threads: one.
// Fails:   create: kTooLarge, kInvalidArgument. Taking beyond the room or giving back twice: CHECK.
//
// Invariants
//   1. held() counts exactly the ids taken and not given back by all who hold them, and the pages
//      that charged bytes come to; each id is below the ids ever touched.
//   2. Ids are reused last in, first out, so memory touched never exceeds the most ever held.
//   3. held() > budget() only after set_budget() shrank; then room() is negative and take()
//   refuses.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coppice/error.h"
#include "ops/backend.h"

namespace coppice::kv {

using ops::PageId;

class PagePool {
 public:
  static Expected<PagePool> create(ops::Backend& backend, const ops::KvLayout& layout,
                                   int64_t budget_pages, int64_t max_pages);

  const ops::KvArena& arena() const { return arena_; }
  ops::Backend& backend() const { return *backend_; }
  int64_t page_bytes() const { return arena_.layout.page_bytes; }
  int32_t page_slots() const { return arena_.layout.page_slots; }

  int64_t budget() const { return budget_; }
  int64_t max_budget() const { return max_; }
  int64_t held() const { return taken_ + pages_for(charged_); }
  int64_t room() const { return budget_ - held(); }
  void set_budget(int64_t pages);

  // Fills `out` with zeroed pages; out.size() must be within room().
  void take(std::span<PageId> out);
  void give_back(std::span<const PageId> ids);
  bool is_held(PageId id) const { return holders(id) > 0; }

  // One more holder: the page is free once all have given it back.
  void share(PageId id);
  int32_t holders(PageId id) const;

  // Memory beside the pages that counts against the budget like them.
  void charge(int64_t bytes);
  int64_t charged() const { return charged_; }
  int64_t pages_for(int64_t bytes) const { return (bytes + page_bytes() - 1) / page_bytes(); }

 private:
  PagePool() = default;

  ops::Backend* backend_ = nullptr;
  Buffer memory_;
  ops::KvArena arena_;
  int64_t budget_ = 0;
  int64_t max_ = 0;
  int64_t taken_ = 0;
  int64_t charged_ = 0;
  std::vector<PageId> free_;       // touched and given back
  std::vector<uint16_t> holders_;  // [ids ever touched]
};

}  // namespace coppice::kv
