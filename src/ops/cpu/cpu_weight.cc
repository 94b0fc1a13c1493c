#include "ops/cpu/cpu_weight.h"

#include <algorithm>

namespace coppice::ops::cpu {
namespace {

// In multiply-adds or bytes moved: some 5 us of work, where waking another thread begins to pay.
constexpr int64_t kWorthSharing = 200'000;
constexpr int64_t kRunsPerThread = 4;

}  // namespace

int64_t count_runs(const ThreadPool& pool, int64_t count, int64_t cost_of_one) {
  if (pool.threads() == 1 || count * cost_of_one < kWorthSharing) return 1;
  return std::min(count, kRunsPerThread * pool.threads());
}

}  // namespace coppice::ops::cpu
