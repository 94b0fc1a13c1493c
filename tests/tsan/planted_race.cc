// A race on purpose: two workers add to one plain integer. Its test passes only when the thread
// sanitizer reports it, which shows that a clean run of the other tests under that build means
// something.
#include <atomic>
#include <cstdio>

#include "ops/cpu/thread_pool.h"

int main() {
  coppice::ops::cpu::ThreadPool pool(2);
  long sum = 0;
  std::atomic<int> inside = 0;
  pool.parallel_for(2, [&](int, int) {
    // Neither goes on before both are in; relaxed, so that this orders nothing.
    inside.fetch_add(1, std::memory_order_relaxed);
    while (inside.load(std::memory_order_relaxed) < 2) {
    }
    ++sum;
  });
  std::printf("%ld\n", sum);
  return 0;
}
