// What:    the cache's rules without a tree or pages: a set of held prefixes, and what live
// sequences
//          plan. Slow and obvious; the property test compares the cache with it.
// Owns:    hashes of every held prefix, the paths that lead to them.
// Threads: one.
// Fails:   never.
#pragma once

#include <algorithm>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "kv/test_rig.h"

namespace coppice::kv {

class NaiveModel {
 public:
  // Leading tokens of the path whose keys and values are held.
  int64_t held(const std::vector<uint64_t>& hashes) const {
    const auto missing =
        std::ranges::find_if(hashes, [this](uint64_t h) { return !held_.contains(h); });
    return missing - hashes.begin();
  }
  bool holds(uint64_t hash) const { return held_.contains(hash); }
  const std::unordered_set<uint64_t>& all() const { return held_; }

  void hold(const Rig::Live& path, int64_t length) {
    for (int64_t i = 0; i < length; ++i) held_.insert(path.hashes[static_cast<size_t>(i)]);
    if (length > 0) remember(path, length);
  }
  // Some of it was reclaimed: asks `still_held` for every path.
  template <class StillHeld>
  void forget(StillHeld still_held) {
    std::unordered_map<uint64_t, Rig::Live> old;
    old.swap(paths_);
    std::unordered_set<uint64_t> before;
    before.swap(held_);
    for (const auto& [hash, path] : old) {
      const int64_t length = still_held(path);
      for (int64_t i = 0; i < length; ++i) {
        const uint64_t h = path.hashes[static_cast<size_t>(i)];
        ASSERT_TRUE(before.contains(h)) << "the cache holds what was never computed";
        held_.insert(h);
      }
      if (length > 0) remember(path, length);
    }
  }

 private:
  void remember(const Rig::Live& path, int64_t length) {
    const size_t n = static_cast<size_t>(length);
    if (paths_.contains(path.hashes[n - 1])) return;
    paths_[path.hashes[n - 1]] = {path.scope,
                                  {path.tokens.begin(), path.tokens.begin() + length},
                                  {path.hashes.begin(), path.hashes.begin() + length}};
  }
  std::unordered_set<uint64_t> held_;
  std::unordered_map<uint64_t, Rig::Live> paths_;  // by the hash of the whole path
};

}  // namespace coppice::kv
