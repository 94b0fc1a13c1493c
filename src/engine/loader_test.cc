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
  // What it names is what it takes: a page for each layer and head beside them.
  const model::ModelConfig& config = free->parts.checkpoint->config();
  const ops::KvLayout layout = free->parts.backend->kv_layout(DType::kF32, config.head_dim).value();
  const int64_t least =
      fixed + layout.page_bytes * config.num_hidden_layers * config.num_key_value_heads;
  EXPECT_NE(refused.error().message.find(std::to_string(least)), std::string::npos)
      << refused.error().message;
  options.memory = least;
  EXPECT_TRUE(load_with(options));
  options.memory = least - 1;
  EXPECT_FALSE(load_with(options));
}

// Scratch and pages count before minutes go into the weights.
TEST(Load, WhatCannotFitIsRefusedBeforeTheWeights) {
  EngineOptions options = golden_options("llama");
  options.backend = "cpu";
  options.kv_budget = int64_t{1} << 20;
  for (const WeightStorage weights : {WeightStorage::kAuto, WeightStorage::kInt8}) {
    options.weights = weights;
    options.memory.reset();
    const auto free = load_with(options).value();
    const int64_t all = free.info.weight_bytes + free.info.activation_bytes + (1 << 20);
    int tensors = 0;
    const auto within = [&](int64_t memory) {
      options.memory = memory;
      tensors = 0;
      return load(options, backend_for(options).value(), [&](int64_t, int64_t) { ++tensors; });
    };
    const auto refused = within(all - 1);
    ASSERT_FALSE(refused);
    EXPECT_EQ(tensors, 0);
    EXPECT_NE(refused.error().message.find("at least " + std::to_string(all) + " bytes"),
              std::string::npos)
        << refused.error().message;
    EXPECT_TRUE(within(all)) << "what is named is what it takes";
    EXPECT_GT(tensors, 0);
    options.kv_budget_limit = (1 << 20) + 1;
    EXPECT_FALSE(within(all));
    EXPECT_EQ(tensors, 0);
    options.kv_budget_limit.reset();
  }
}

TEST(Load, NoBudgetIsLessThanAPageEach) {
  EngineOptions options = golden_options("llama");
  options.kv_budget.reset();
  options.kv_budget_limit = 1;
  const auto refused = load_with(options);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(refused.error().message.find("kv_budget_limit is 1;"), 0u) << refused.error().message;
}

TEST(Load, TheKvTypeDecidesTheBytesOfATokenAndThePagesOfABudget) {
  for (const auto& [kv_type, element] : {std::pair(KvType::kF32, DType::kF32),
                                         {KvType::kBF16, DType::kBF16},
                                         {KvType::kInt8, DType::kI8}}) {
    EngineOptions options = golden_options("llama");
    options.backend = "cpu";
    options.kv_type = kv_type;
    options.kv_budget = int64_t{1} << 20;
    Rig rig(options);
    const model::ModelConfig& config = rig.core().parts().checkpoint->config();
    ASSERT_EQ(config.head_dim % 16, 0) << "pages would be padded";
    const int64_t slot = ops::kv_slot_bytes(element, config.head_dim);
    const EngineStats stats = rig.core().stats();
    EXPECT_EQ(stats.bytes_per_token, config.num_hidden_layers * config.num_key_value_heads * slot);
    EXPECT_EQ(stats.page_bytes, 16 * slot);
    EXPECT_EQ(stats.pages_total, *options.kv_budget / stats.page_bytes);
    const auto tape = rig.submit(token_noise(1, 40, 3, 250), greedy(8));
    rig.run();
    EXPECT_EQ(tape->take().tokens.size(), 8u);
    // When the pages held were most first: after the prompt, in three pages of each list.
    const KvReceipt& kv = tape->take().result.kv;
    EXPECT_EQ(kv.bytes_unshared, 40 * stats.bytes_per_token);
    EXPECT_EQ(kv.bytes_held, 48 * stats.bytes_per_token);
  }
}

TEST(Load, Int8WeightsAreHeldInHalfTheBytes) {
  EngineOptions options = golden_options("llama");
  options.backend = "cpu";
  options.dtype = WeightType::kBF16;
  const auto plain = load_with(options);
  options.weights = WeightStorage::kInt8;
  const auto small = load_with(options);
  ASSERT_TRUE(plain && small);
  EXPECT_LT(small->info.weight_bytes, plain->info.weight_bytes * 6 / 10);
}

}  // namespace
}  // namespace coppice::engine
