#include "kv/reclaim.h"

namespace coppice::kv {
namespace {

class LeastRecentlyUsed : public ReclaimPolicy {
 public:
  bool before(const Candidate& a, const Candidate& b) const override {
    if (a.last_used != b.last_used) return a.last_used < b.last_used;
    // Of one request's nodes the deepest goes first: its prefix serves more of what may come.
    return a.depth > b.depth;
  }
};

}  // namespace

std::unique_ptr<ReclaimPolicy> least_recently_used() {
  return std::make_unique<LeastRecentlyUsed>();
}

size_t ReclaimQueue::size() const {
  size_t size = 0;
  for (const Entries& entries : entries_) size += entries.size();
  return size;
}

const ReclaimQueue::Entry* ReclaimQueue::coldest(uint64_t clock) const {
  const Entry* coldest = nullptr;
  for (const Entries& entries : entries_) {
    if (entries.empty()) continue;
    const Entry& first = *entries.begin();
    if (coldest == nullptr || first.coldness(clock) > coldest->coldness(clock)) coldest = &first;
  }
  return coldest;
}

const OverlayQueue::Entry* OverlayQueue::coldest(uint64_t clock) const {
  const Entry* coldest = nullptr;
  for (const std::set<Entry>& entries : entries_) {
    if (entries.empty()) continue;
    const Entry& first = *entries.begin();
    if (coldest == nullptr || first.coldness(clock) > coldest->coldness(clock)) coldest = &first;
  }
  return coldest;
}

}  // namespace coppice::kv
