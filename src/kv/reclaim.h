// What:    the order in which what nobody uses is given back under pressure: leaves freed, runs of
//          elastic scopes thinned, overlays of inner boundaries freed.
// Owns:    the queues of candidates; the nodes belong to the tree.
// Threads: one.
// Fails:   never.
//
// Age decides: steps since the last use. Every thinning makes the age at which a node's next turn
// comes four times as long, so that memory is spread like use: the hot whole, the cooler thinner,
// the cold gone.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <set>

#include "kv/kv_cache.h"

namespace coppice::kv {

struct Node;

inline constexpr int32_t kMostEpochs = 3;  // times that a run is thinned: to about an eighth

// What has the most goes first; epoch: how often it was thinned.
inline uint64_t coldness(uint64_t clock, uint64_t used, int32_t epoch) {
  return (clock - used + 1) << (2 * (kMostEpochs - epoch));
}

// Unreferenced nodes: leaves, and what may be thinned.
class ReclaimQueue {
 public:
  // What a node was when it was queued; the order must not move under the set.
  struct Entry {
    ReclaimPolicy::Candidate candidate;
    uint64_t age = 0;  // breaks ties, so that the order is the same in every run
    Node* node = nullptr;
    int32_t epoch = 0;
    uint64_t coldness(uint64_t clock) const {
      return kv::coldness(clock, candidate.last_used, epoch);
    }
  };

  explicit ReclaimQueue(std::unique_ptr<ReclaimPolicy> policy) : policy_(std::move(policy)) {
    entries_.fill(Entries(Before{policy_.get()}));
  }

  void insert(const Entry& entry) { of(entry).insert(entry); }
  void erase(const Entry& entry) { of(entry).erase(entry); }
  size_t size() const;
  const Entry* coldest(uint64_t clock) const;  // null: empty

 private:
  struct Before {
    const ReclaimPolicy* policy = nullptr;
    bool operator()(const Entry& a, const Entry& b) const {
      if (policy->before(a.candidate, b.candidate)) return true;
      if (policy->before(b.candidate, a.candidate)) return false;
      return a.age != b.age ? a.age < b.age : a.node < b.node;
    }
  };
  using Entries = std::set<Entry, Before>;
  Entries& of(const Entry& entry) { return entries_[static_cast<size_t>(entry.epoch)]; }

  std::unique_ptr<ReclaimPolicy> policy_;
  std::array<Entries, kMostEpochs + 1> entries_;  // by epoch
};

// Overlays of inner boundaries, least recently started from first.
class OverlayQueue {
 public:
  struct Entry {
    uint64_t used = 0;
    uint64_t age = 0;
    Node* node = nullptr;
    // Without it an elastic node would be lost to those who start there: it stays as long as the
    // node would.
    bool elastic = false;
    uint64_t coldness(uint64_t clock) const {
      return kv::coldness(clock, used, elastic ? kMostEpochs : 0);
    }
    bool operator<(const Entry& other) const {
      if (used != other.used) return used < other.used;
      return age != other.age ? age < other.age : node < other.node;
    }
  };

  void insert(const Entry& entry) { entries_[entry.elastic ? 1 : 0].insert(entry); }
  void erase(const Entry& entry) { entries_[entry.elastic ? 1 : 0].erase(entry); }
  size_t size() const { return entries_[0].size() + entries_[1].size(); }
  const Entry* coldest(uint64_t clock) const;  // null: empty

 private:
  std::array<std::set<Entry>, 2> entries_;  // of elastic scopes: [1]
};

}  // namespace coppice::kv
