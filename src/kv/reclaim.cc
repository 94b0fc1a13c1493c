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

}  // namespace coppice::kv
