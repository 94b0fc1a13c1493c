// What:    a small team of threads behind one call: parallel_for(count, fn).
// Owns:    its threads (all but the caller), each pinned to a core where the system allows it.
// Threads: one caller at a time; the caller takes part. No call may be made from inside fn.
// Fails:   never; a thread that cannot be started or pinned only costs speed.
//
// A job is three plain fields and two counters:
//   unclaimed_  items nobody has taken yet; a worker takes one by counting down
//   finished_   items done; the caller returns when it reaches the count
// Invariants
//   1. Fields are written only while unclaimed_ is 0 and finished_ equals the last count.
//   2. A worker reads them only after it took an item, so the job it reads cannot end under it.
//   3. Every item runs exactly once; in which order and on which thread is not defined.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace coppice::ops::cpu {

class ThreadPool {
 public:
  // threads >= 1, the caller included.
  explicit ThreadPool(int threads);
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
  static constexpr int32_t kStop = -1;

  void run(int32_t count, Function function, void* context);
  void take_items(int32_t thread);
  void work(int32_t thread);

  int threads_;
  Function function_ = nullptr;
  void* context_ = nullptr;
  int32_t count_ = 0;
  alignas(64) std::atomic<int32_t> unclaimed_{0};
  alignas(64) std::atomic<int32_t> finished_{0};
  std::vector<std::jthread> workers_;
};

// Cores this process may run on, counting threads that share a core once; at least 1.
int physical_cores();

}  // namespace coppice::ops::cpu
