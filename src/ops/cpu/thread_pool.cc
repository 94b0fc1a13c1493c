#include "ops/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <hwy/cache_control.h>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "base/check.h"

namespace coppice::ops::cpu {
namespace {

// Pauses before a waiting thread parks: some 50 us, longer than the gaps between a layer's calls.
constexpr int kSpins = 2000;

// Waits while value is `expected`: briefly awake, then parked.
void wait_while(const std::atomic<int32_t>& value, int32_t expected) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != expected) return;
    hwy::Pause();
  }
  value.wait(expected, std::memory_order_acquire);
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

void pin(std::jthread& thread, int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  (void)pthread_setaffinity_np(thread.native_handle(), sizeof(set), &set);
}

}  // namespace

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  CHECK(threads >= 1);
  const std::vector<int> cpus = allowed_cpus();
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int thread = 1; thread < threads; ++thread) {
    try {
      workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::system_error&) {
      break;  // fewer hands; threads() keeps the bound that scratch was sized by
    }
    if (static_cast<size_t>(threads) <= cpus.size()) {
      pin(workers_.back(), cpus[static_cast<size_t>(thread)]);
    }
  }
}

ThreadPool::~ThreadPool() {
  unclaimed_.store(kStop, std::memory_order_release);
  unclaimed_.notify_all();
}

void ThreadPool::run(int32_t count, Function function, void* context) {
  CHECK(count >= 0);
  if (workers_.empty() || count <= 1) {
    for (int32_t item = 0; item < count; ++item) function(context, item, 0);
    return;
  }
  DCHECK(unclaimed_.load(std::memory_order_relaxed) == 0);
  function_ = function;
  context_ = context;
  count_ = count;
  finished_.store(0, std::memory_order_relaxed);
  unclaimed_.store(count, std::memory_order_release);
  unclaimed_.notify_all();
  take_items(0);
  for (int32_t done; (done = finished_.load(std::memory_order_acquire)) != count;) {
    wait_while(finished_, done);
  }
}

void ThreadPool::take_items(int32_t thread) {
  int32_t left = unclaimed_.load(std::memory_order_relaxed);
  while (left > 0) {
    if (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                          std::memory_order_relaxed)) {
      continue;
    }
    const int32_t count = count_;
    function_(context_, count - left, thread);
    if (finished_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) finished_.notify_one();
    left = unclaimed_.load(std::memory_order_relaxed);
  }
}

void ThreadPool::work(int32_t thread) {
  for (;;) {
    take_items(thread);
    const int32_t left = unclaimed_.load(std::memory_order_acquire);
    if (left == kStop) return;
    if (left == 0) wait_while(unclaimed_, 0);
  }
}

int physical_cores() {
  std::set<std::string> cores;
  for (const int cpu : allowed_cpus()) {
    std::ifstream siblings("/sys/devices/system/cpu/cpu" + std::to_string(cpu) +
                           "/topology/thread_siblings_list");
    std::string line;
    if (!std::getline(siblings, line)) line = std::to_string(cpu);
    cores.insert(line);
  }
  return cores.empty() ? 1 : static_cast<int>(cores.size());
}

}  // namespace coppice::ops::cpu
