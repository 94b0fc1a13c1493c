#include "ops/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <thread>
#include <vector>

namespace coppice::ops::cpu {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

TEST_P(ThreadPoolTest, EveryItemRunsOnceAndItsWritesAreSeen) {
  ThreadPool pool(GetParam());
  for (const int32_t count : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> runs(static_cast<size_t>(count), 0);  // plain on purpose: a race would show
    pool.parallel_for(count, [&](int32_t item, int32_t thread) {
      EXPECT_GE(thread, 0);
      EXPECT_LT(thread, pool.threads());
      ++runs[static_cast<size_t>(item)];
    });
    EXPECT_EQ(std::accumulate(runs.begin(), runs.end(), 0), count);
    for (const int run : runs) EXPECT_EQ(run, 1);
  }
}

// Two items that wait for each other finish only if two threads really work at once.
TEST(ThreadPool, ItemsRunSideBySide) {
  ThreadPool pool(2);
  std::atomic<int> here{0};
  pool.parallel_for(2, [&](int32_t, int32_t) {
    here.fetch_add(1);
    while (here.load() < 2) std::this_thread::yield();
  });
  EXPECT_EQ(here.load(), 2);
}

// A thread's scratch is never shared by two items at the same time.
TEST(ThreadPool, AThreadNumberIsHeldByOneItemAtATime) {
  ThreadPool pool(4);
  std::vector<std::atomic<int>> holders(4);
  for (int round = 0; round < 200; ++round) {
    pool.parallel_for(16, [&](int32_t, int32_t thread) {
      EXPECT_EQ(holders[static_cast<size_t>(thread)].fetch_add(1), 0);
      holders[static_cast<size_t>(thread)].fetch_sub(1);
    });
  }
}

TEST(ThreadPool, ManyShortJobsBackToBackAndAfterParking) {
  ThreadPool pool(3);
  int64_t sum = 0;
  for (int job = 0; job < 5000; ++job) {
    int64_t parts[4] = {};
    pool.parallel_for(4, [&](int32_t item, int32_t) { parts[item] = item + job; });
    sum += parts[0] + parts[1] + parts[2] + parts[3];
    if (job % 1000 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(sum, int64_t{5000} * 6 + 4 * int64_t{5000} * 4999 / 2);
}

// Cpus of this process over and over, in groups of these sizes.
Topology groups_of(const std::vector<int>& sizes) {
  const Topology machine = this_machine();
  Topology out;
  for (size_t group = 0; group < sizes.size(); ++group) {
    for (int i = 0; i < sizes[group]; ++i) {
      const Cpu& cpu = machine.cpus[out.cpus.size() % machine.cpus.size()];
      out.cpus.push_back({cpu.number, static_cast<int>(group) * 10});
    }
  }
  out.cores = static_cast<int>(out.cpus.size());
  return out;
}

TEST(ThreadPool, EveryGroupBeginsWithItsStretch) {
  ThreadPool pool(6, groups_of({1, 2, 3}));
  // All six are in an item at once, so each has its first one, which is of its own group's.
  std::vector<int32_t> first(6, -1);
  std::atomic<int> here{0};
  pool.parallel_for(6, [&](int32_t item, int32_t thread) {
    first[static_cast<size_t>(thread)] = item;
    here.fetch_add(1);
    while (here.load() < 6) std::this_thread::yield();
  });
  EXPECT_EQ(first[0], 0);
  std::sort(first.begin() + 1, first.begin() + 3);
  EXPECT_EQ(first[1], 1);
  EXPECT_EQ(first[2], 2);
  std::sort(first.begin() + 3, first.end());
  EXPECT_EQ(first[3], 3);
  EXPECT_EQ(first[5], 5);
}

TEST(ThreadPool, IdleGroupsTakeWhatOthersLeft) {
  ThreadPool pool(4, groups_of({2, 2}));
  for (const int32_t count : {2, 3, 5, 64}) {
    std::vector<int> runs(static_cast<size_t>(count), 0);
    std::atomic<int> others{0};
    pool.parallel_for(count, [&](int32_t item, int32_t) {
      ++runs[static_cast<size_t>(item)];
      // The first item ends only when all others have: somebody takes those of its group.
      if (item > 0) others.fetch_add(1);
      while (item == 0 && others.load() < count - 1) std::this_thread::yield();
    });
    for (const int run : runs) EXPECT_EQ(run, 1);
  }
}

}  // namespace
}  // namespace coppice::ops::cpu
