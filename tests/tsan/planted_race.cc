// A race on purpose: two workers add to one plain integer. Its test passes only when the thread
// sanitizer reports it, which shows that a clean run of the other tests under that build means
// something.
#include <cstdio>

#include "ops/cpu/thread_pool.h"

int main() {
  coppice::ops::cpu::ThreadPool pool(2);
  long sum = 0;
  for (int round = 0; round < 100; ++round) {
    pool.parallel_for(64, [&](int64_t item, int) { sum += item; });
  }
  std::printf("%ld\n", sum);
  return 0;
}
