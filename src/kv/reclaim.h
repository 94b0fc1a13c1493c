// What:    the order in which unreferenced leaves are given back.
// Owns:    the queue of candidates; the nodes belong to the tree.
// Threads: one.
// Fails:   never.
#pragma once

#include <cstdint>
#include <memory>
#include <set>

#include "kv/kv_cache.h"

namespace coppice::kv {

struct Node;

class ReclaimQueue {
 public:
  // What a leaf was when it was queued; the order must not move under the set.
  struct Entry {
    ReclaimPolicy::Candidate candidate;
    uint64_t age = 0;  // breaks ties, so that the order is the same in every run
    Node* node = nullptr;
  };

  explicit ReclaimQueue(std::unique_ptr<ReclaimPolicy> policy)
      : policy_(std::move(policy)), entries_(Before{policy_.get()}) {}

  void insert(const Entry& entry) { entries_.insert(entry); }
  void erase(const Entry& entry) { entries_.erase(entry); }
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  Node* front() const { return entries_.begin()->node; }
  const Entry& first() const { return *entries_.begin(); }

 private:
  struct Before {
    const ReclaimPolicy* policy;
    bool operator()(const Entry& a, const Entry& b) const {
      if (policy->before(a.candidate, b.candidate)) return true;
      if (policy->before(b.candidate, a.candidate)) return false;
      return a.age != b.age ? a.age < b.age : a.node < b.node;
    }
  };
  std::unique_ptr<ReclaimPolicy> policy_;
  std::set<Entry, Before> entries_;
};

// Overlays of inner boundaries, least recently started from first.
class OverlayQueue {
 public:
  struct Entry {
    uint64_t used = 0;
    uint64_t age = 0;
    Node* node = nullptr;
    bool operator<(const Entry& other) const {
      if (used != other.used) return used < other.used;
      return age != other.age ? age < other.age : node < other.node;
    }
  };

  void insert(const Entry& entry) { entries_.insert(entry); }
  void erase(const Entry& entry) { entries_.erase(entry); }
  bool empty() const { return entries_.empty(); }
  size_t size() const { return entries_.size(); }
  const Entry& front() const { return *entries_.begin(); }

 private:
  std::set<Entry> entries_;
};

}  // namespace coppice::kv
