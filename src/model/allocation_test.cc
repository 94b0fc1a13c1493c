// A step allocates nothing once the first of its size has run (architecture, section 7).
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "model/test_golden.h"
#include "model/test_sequence.h"

namespace {
std::atomic<int64_t> allocations = 0;
}

// The whole test binary counts. Not inlined: the compiler would see malloc meet delete and warn.
[[gnu::noinline]] void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace coppice::model::testing {
namespace {

TEST(Forward, AllocatesNothingAfterWarmUp) {
  const auto backend = make_backend("cpu", DType::kBF16, 2);
  const auto model = Model::load(*open_golden("qwen3"), *backend, {}).value();
  TestSequence sequence(*backend, model->config(), DType::kBF16, 64);
  const std::vector<int32_t> tokens = {1, 2, 3, 4}, positions = {0, 1, 2, 3}, last = {3};
  const ops::AttentionPlan plan = sequence.make_plan(4);
  const ForwardInput input{.tokens = tokens,
                           .positions = positions,
                           .owners = {},
                           .evaluated = {},
                           .logit_rows = last,
                           .plan = plan,
                           .arena = sequence.arena()};
  model->forward(input);
  ASSERT_GT(allocations, 0) << "the counter counts";
  const int64_t before = allocations;
  model->forward(input);
  EXPECT_EQ(allocations - before, 0);
}

}  // namespace
}  // namespace coppice::model::testing
