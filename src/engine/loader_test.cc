#include "engine/loader.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <algorithm>

#include "engine/test_harness.h"
#include "ops/passing_backend.h"

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

// The most that the heap holds while steps run.
class HeapWatch : public ops::PassingBackend {
 public:
  HeapWatch(std::unique_ptr<ops::Backend> inner, int64_t& most)
      : PassingBackend(std::move(inner)), most_(most) {}

  static int64_t held() {
    const struct mallinfo2 now = mallinfo2();
    return static_cast<int64_t>(now.uordblks + now.hblkhd);
  }
  void attention(const TensorView& q, const ops::AttentionParams& params,
                 const ops::AttentionPlan& plan, const ops::KvArena& arena,
                 const TensorView& out) override {
    most_ = std::max(most_, held());
    PassingBackend::attention(q, params, plan, arena, out);
  }

 private:
  int64_t& most_;
};

// What prompts that fill a step add to the heap while they are read.
int64_t heap_of_prompts(const EngineOptions& options, KvTier tier) {
  int64_t most = 0;
  Rig rig(options, [&](std::unique_ptr<ops::Backend> inner) {
    return std::make_unique<HeapWatch>(std::move(inner), most);
  });
  const int64_t before = HeapWatch::held();
  for (uint32_t i = 0; i * options.slice < static_cast<uint32_t>(options.max_rows); ++i) {
    Request request;
    request.prompt = token_noise(i, static_cast<size_t>(options.slice) + 1, 3, 250);
    request.sampling = greedy(2);
    request.kv_tier = tier;
    rig.submit(std::move(request));
  }
  rig.run();
  EXPECT_EQ(rig.core().stats().max_step_rows, options.max_rows);
  return most - before;
}

TEST(Load, TheArraysOfGatedStepsCountAgainstTheMemory) {
  EngineOptions options = golden_options("llama");
  const auto plain = load_with(options);
  options.gate = "policy:random,keep=0.25,window=64";
  const auto gated = load_with(options);
  ASSERT_TRUE(plain && gated);
  const auto arrays_of = [](const Loaded& loaded) {
    return loaded.info.activation_bytes - loaded.parts.model->activation_bytes() -
           loaded.parts.backend->scratch_bytes();
  };
  EXPECT_EQ(arrays_of(*plain), 0);
  // Of 512 rows in 4 lists, and of 64 sequences what their windows see.
  EXPECT_GT(arrays_of(*gated), 512 * 4 * 29 + 64 * 4 * 64 * 4);

  // Page memory is what the rest leaves.
  options.kv_budget.reset();
  options.memory = gated->info.weight_bytes + gated->info.activation_bytes + (1 << 20);
  const auto tight = load_with(options);
  ASSERT_TRUE(tight) << tight.error().message;
  EXPECT_EQ(tight->limits.kv_budget, 1 << 20);

  options = golden_options("llama");
  options.gate = "policy:random,keep=0.25,window=64";
  options.max_rows = 2048;
  options.slice = 512;
  options.max_live = 4;
  const int64_t off = heap_of_prompts(options, KvTier::kOff);
  if (off <= 0) GTEST_SKIP() << "this allocator does not say what it holds";
  const int64_t more = heap_of_prompts(options, KvTier::kHard) - off;
  const int64_t arrays = arrays_of(load_with(options).value());
  EXPECT_LE(more, arrays);
  EXPECT_GE(more, arrays / 2);
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
