#include "ops/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <hwy/cache_control.h>
#include <map>
#include <system_error>

#include "base/check.h"

namespace coppice::ops::cpu {
namespace {

// Pauses before a waiting thread parks: some 50 us, longer than the gaps between a layer's calls.
constexpr int kSpins = 2000;

// Waits while value is `expected`: briefly awake, then parked.
template <class T>
void wait_while(const std::atomic<T>& value, T expected) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != expected) return;
    hwy::Pause();
  }
  value.wait(expected, std::memory_order_acquire);
}

void pin(std::jthread& thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)pthread_setaffinity_np(thread.native_handle(), sizeof(set), &set);
}

}  // namespace

ThreadPool::ThreadPool(int threads, const Topology& topology) : threads_(threads) {
  CHECK(threads >= 1);
  const auto count = static_cast<size_t>(threads);
  const bool pinned = count <= topology.cpus.size();
  std::map<int, int32_t> numbers;  // of the groups that these threads are in
  for (size_t thread = 0; thread < count; ++thread) {
    const int group = pinned ? topology.cpus[thread].group : 0;
    const auto number = static_cast<int32_t>(numbers.size());
    group_of_.push_back(numbers.try_emplace(group, number).first->second);
  }
  groups_ = std::vector<Group>(numbers.size());
  for (const int32_t group : group_of_) ++groups_[static_cast<size_t>(group)].threads;
  workers_.reserve(count - 1);
  for (int32_t thread = 1; thread < threads; ++thread) {
    try {
      workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error&) {
      break;  // fewer hands; threads() keeps the bound that scratch was sized by
    }
    if (pinned) pin(workers_.back(), topology.cpus[static_cast<size_t>(thread)].number);
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  post();
}

void ThreadPool::post() {
  posted_.fetch_add(1, std::memory_order_release);
  posted_.notify_all();
}

void ThreadPool::run(int32_t count, Function function, void* context) {
  CHECK(count >= 0);
  if (workers_.empty() || count <= 1) {
    for (int32_t item = 0; item < count; ++item) function(context, item, 0);
    return;
  }
  function_ = function;
  context_ = context;
  unfinished_.store(static_cast<int32_t>(groups_.size()), std::memory_order_relaxed);
  int32_t begin = 0, threads = 0;
  for (Group& group : groups_) {
    DCHECK(group.unfinished.load(std::memory_order_relaxed) == 0);
    threads += group.threads;
    group.end = static_cast<int32_t>(int64_t{count} * threads / threads_);
    const int32_t items = group.end - begin;
    if (items == 0) unfinished_.fetch_sub(1, std::memory_order_relaxed);
    group.unfinished.store(items, std::memory_order_relaxed);
    group.unclaimed.store(items, std::memory_order_release);
    begin = group.end;
  }
  post();
  take_items(0);
  for (int32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;) {
    wait_while(unfinished_, left);
  }
}

void ThreadPool::take_items(int32_t thread) {
  const auto own = static_cast<size_t>(group_of_[static_cast<size_t>(thread)]);
  for (size_t i = 0; i < groups_.size(); ++i) {
    take_items_of(groups_[(own + i) % groups_.size()], thread);
  }
}

void ThreadPool::take_items_of(Group& group, int32_t thread) {
  int32_t left = group.unclaimed.load(std::memory_order_relaxed);
  while (left > 0) {
    if (!group.unclaimed.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                               std::memory_order_relaxed)) {
      continue;
    }
    function_(context_, group.end - left, thread);
    if (group.unfinished.fetch_sub(1, std::memory_order_acq_rel) == 1 &&
        unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      unfinished_.notify_one();
    }
    left = group.unclaimed.load(std::memory_order_relaxed);
  }
}

void ThreadPool::work(int32_t thread) {
  for (;;) {
    const uint32_t seen = posted_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    take_items(thread);
    wait_while(posted_, seen);
  }
}

}  // namespace coppice::ops::cpu
