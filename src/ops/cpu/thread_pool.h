// What:    a small team of threads behind one call: parallel_for(count, fn).
// Owns:    its threads (all but the caller), each pinned to a core where the system allows it.
// Threads: one caller at a time; the caller takes part. No call may be made from inside fn.
// Fails:   never; a thread that cannot be started or pinned only costs speed.
//
// Threads whose cores share a last-level cache form a group, and every group has a stretch of the
// items in proportion to its threads. So what a group touched first (a weight's panels when they
// were packed) it works on later: from its own cache and its own node's memory. Who runs out of
// items takes those of other groups.
//
// A job is plain fields and counters:
//   group.unclaimed   items of its stretch nobody has taken yet; a worker takes one by counting
//   down group.unfinished  items of its stretch not done yet: a line that mostly stays within one
//   cache unfinished_       groups not done yet; the caller returns when there are none posted_
//   jobs begun; whoever finds nothing to do waits for the next
// Invariants
//   1. Fields are written only while every unclaimed and unfinished is 0.
//   2. A worker reads them only after it took an item, so the job it reads cannot end under it.
//   3. Every item runs exactly once; in which order and on which thread is not defined.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

#include "ops/cpu/topology.h"

namespace coppice::ops::cpu {

class ThreadPool {
 public:
  // threads >= 1, the caller included.
  explicit ThreadPool(int threads, const Topology& topology = this_machine());
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // fn(item, thread) for every item in [0, count), thread in [0, threads()): use it to choose
  // scratch, never to choose arithmetic. Returns when all are done; what they wrote is visible.
  template <class Fn>
  void parallel_for(int32_t count, Fn&& fn) {
    run(
        count,
        [](void* context, int32_t item, int32_t thread) {
          (*static_cast<std::remove_reference_t<Fn>*>(context))(item, thread);
        },
        const_cast<void*>(static_cast<const void*>(std::addressof(fn))));
  }

 private:
  using Function = void (*)(void* context, int32_t item, int32_t thread);
  struct alignas(64) Group {
    std::atomic<int32_t> unclaimed{0};
    std::atomic<int32_t> unfinished{0};
    int32_t end = 0;      // of its stretch of items
    int32_t threads = 0;  // those that begin here
  };

  void run(int32_t count, Function function, void* context);
  void post();
  void take_items(int32_t thread);
  void take_items_of(Group& group, int32_t thread);
  void work(int32_t thread);

  int threads_;
  std::vector<Group> groups_;
  std::vector<int32_t> group_of_;  // [threads]
  Function function_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint32_t> posted_{0};
  std::atomic<bool> stopping_{false};
  alignas(64) std::atomic<int32_t> unfinished_{0};
  std::vector<std::jthread> workers_;
};

}  // namespace coppice::ops::cpu
