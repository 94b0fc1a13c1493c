#include "engine/loader.h"

#include <gtest/gtest.h>

#include "engine/test_harness.h"

namespace coppice::engine {
namespace {

Expected<Loaded> load_with(const EngineOptions& options) {
  return load(options, backend_for(options).value(), {});
}

TEST(Load, TheBackendsScratchCountsAgainstTheMemory) {
  EngineOptions options = golden_options("llama");
  options.backend = "cpu";
  options.threads = 2;
  options.kv_budget.reset();
  const auto free = load_with(options);
  ASSERT_TRUE(free) << free.error().message;
  const int64_t scratch = free->parts.backend->scratch_bytes();
  EXPECT_GT(scratch, 0);
  EXPECT_EQ(free->info.activation_bytes, free->parts.model->activation_bytes() + scratch);

  // Page memory is what the rest leaves.
  const int64_t fixed = free->info.weight_bytes + free->info.activation_bytes;
  options.memory = fixed + (1 << 20);
  const auto tight = load_with(options);
  ASSERT_TRUE(tight) << tight.error().message;
  EXPECT_EQ(tight->limits.kv_budget, 1 << 20);

  options.memory = fixed - scratch + 1;  // weights and activations would fit, and a page's byte
  const auto refused = load_with(options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  EXPECT_NE(refused.error().message.find(std::to_string(fixed + 1)), std::string::npos)
      << refused.error().message;
}

}  // namespace
}  // namespace coppice::engine
