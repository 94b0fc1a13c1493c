// What:    the memory of the cache: pages by id, handed out zeroed, within a budget.
// Owns:    the arena (one backend buffer, address space for the largest budget), the free ids.
// Threads: one.
// Fails:   create: kTooLarge, kInvalidArgument. Taking beyond the room or giving back twice: CHECK.
//
// Invariants
//   1. held() counts exactly the ids taken and not given back; each is below the ids ever touched.
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
  int64_t held() const { return held_; }
  int64_t room() const { return budget_ - held_; }
  void set_budget(int64_t pages);

  // Fills `out` with zeroed pages; out.size() must be within room().
  void take(std::span<PageId> out);
  void give_back(std::span<const PageId> ids);
  bool is_held(PageId id) const;

 private:
  PagePool() = default;

  ops::Backend* backend_ = nullptr;
  Buffer memory_;
  ops::KvArena arena_;
  int64_t budget_ = 0;
  int64_t max_ = 0;
  int64_t held_ = 0;
  std::vector<PageId> free_;    // touched and given back
  std::vector<bool> held_bit_;  // [ids ever touched]
};

}  // namespace coppice::kv
