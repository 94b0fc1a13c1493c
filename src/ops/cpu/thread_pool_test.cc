#include "ops/cpu/thread_pool.h"

#include <gtest/gtest.h>

#include <numeric>

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

TEST(ThreadPool, AtLeastOneCore) {
  EXPECT_GE(physical_cores(), 1);
  EXPECT_LE(physical_cores(), static_cast<int>(std::thread::hardware_concurrency()));
}

}  // namespace
}  // namespace coppice::ops::cpu
