// A backend's scratch: what is reserved covers every step within the limits, and what attention
// takes for split row blocks stays under its cap.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "ops/attention_cases.h"
#include "ops/backends.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/kv_pages.h"

namespace coppice::ops {
namespace {

// `rows` rows at the end of one path of `slots`, with queries and pages of small numbers. Gated:
// the last slot is a dropped one.
class Step {
 public:
  Step(int32_t kv_heads, int32_t group, int32_t dim, int32_t rows, int32_t slots,
       bool gated = false)
      : layout_(*cpu::kv_layout(DType::kBF16, dim)),
        shape_{rows, kv_heads * group, dim},
        q_(values(shape_.elements())),
        out_(q_.size()) {
    const int32_t pages = kv_heads * (slots + 15) / 16 + 2 * kv_heads + 1;
    memory_ = *Buffer::allocate(pages * layout_.page_bytes);
    auto* elements = reinterpret_cast<bf16*>(memory_.data());
    const std::vector<float> filling = values(memory_.bytes() / 2);
    std::transform(filling.begin(), filling.end(), elements, [](float x) { return to_bf16(x); });
    forest_ = std::make_unique<Forest>(layout_, memory_.data(), pages, kv_heads);
    if (gated) {
      add_gated(rows, slots, static_cast<size_t>(kv_heads));
    } else {
      forest_->add_sequence(forest_->add_node(-1, {slots}), rows);
    }
    std::mt19937 random(1);
    plan_ = forest_->plan(kv_heads, {}, random);
  }

  // call(q, params, plan, arena, out); returns out.
  template <class Call>
  std::vector<float> run(const Call& call) {
    std::fill(out_.begin(), out_.end(), std::numeric_limits<float>::quiet_NaN());
    call(TensorView(q_.data(), DType::kF32, shape_), AttentionParams{.scale = 0.1f}, plan_.plan,
         forest_->arena(), TensorView(out_.data(), DType::kF32, shape_));
    return out_;
  }
  std::vector<float> run(Backend& backend) {
    return run([&](const auto&... arguments) { backend.attention(arguments...); });
  }
  std::vector<float> run(cpu::Attention& attention) {
    return run([&](const auto&... arguments) {
      const int32_t items = attention.begin(arguments...);
      for (int32_t item = 0; item < items; ++item) attention.run(item, 0);
    });
  }

 private:
  void add_gated(int32_t rows, int32_t slots, size_t lists) {
    const auto bounds = lists * static_cast<size_t>(rows);
    const int32_t node = forest_->add_node(-1, {slots - 1});
    ForestGate gate;
    gate.dropped =
        forest_->add_dropped(std::vector<int32_t>(lists), std::vector<int32_t>(lists, 1));
    gate.last.assign(bounds, slots - 1);
    gate.dropped_first.assign(bounds, 0);
    gate.dropped_last.assign(bounds, 1);
    forest_->add_gated_sequence(node, rows, std::move(gate));
  }

  static std::vector<float> values(int64_t count) {
    std::mt19937 engine(2);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> made(static_cast<size_t>(count));
    std::generate(made.begin(), made.end(), [&] { return uniform(engine); });
    return made;
  }

  KvLayout layout_;
  Shape shape_;
  std::vector<float> q_, out_;
  Buffer memory_;
  std::unique_ptr<Forest> forest_;
  CasePlan plan_;
};

TEST(Scratch, WhatIsReservedCoversEveryStepWithinTheLimits) {
  constexpr int32_t kGroup = 4, kDim = 40;
  const StepLimits limits{.rows = 130, .slots = 2100, .head_dim = kDim, .widest = 64};
  for (const int threads : {2, 3, 5}) {
    for (const int32_t kv_heads : {1, 3}) {
      auto backend = *make_backend("cpu", {.threads = threads});
      StepLimits own = limits;
      own.kv_heads = kv_heads;
      own.query_heads = kv_heads * kGroup;
      ASSERT_TRUE(backend->reserve(own));
      const int64_t reserved = backend->scratch_bytes();
      auto lazy = *make_backend("cpu", {.threads = threads});
      const int64_t none = lazy->scratch_bytes();
      int64_t most = none;
      for (const int32_t rows : {1, 32, 33, 130}) {
        for (const int32_t slots : {512, 513, 2100}) {
          for (const bool gated : {false, true}) {
            Step step(kv_heads, kGroup, kDim, rows, slots, gated);
            const auto out = step.run(*backend);
            ASSERT_EQ(backend->scratch_bytes(), reserved)
                << threads << " threads, " << kv_heads << " heads, " << rows << " rows, " << slots;
            ASSERT_EQ(out, step.run(*lazy));
            most = std::max(most, lazy->scratch_bytes());
          }
        }
      }
      EXPECT_GT(most, none) << "there was something to reserve";
      EXPECT_LE(most, reserved);
    }
  }
}

// 3 blocks of 32 packed rows and 5 ranges of [32][48] partials: 32 KiB each.
TEST(Scratch, BlocksThatFindNoRoomForPartialsAreNotSplit) {
  const cpu::AttentionKernel& kernel = cpu::attention_kernel(*cpu::choose_isa("avx2"));
  Step step(3, 4, 48, 8, 2500);
  const auto scratch = [](cpu::Attention& attention) { return attention.scratch_bytes(); };
  cpu::Attention alone(kernel, 1), capped(kernel, 8, 40 << 10), free(kernel, 8);
  const std::vector<float> want = step.run(alone);
  EXPECT_EQ(step.run(capped), want);
  EXPECT_EQ(step.run(free), want);
  // One worker splits nothing; the others' rows take eight times its rows' scratch.
  const int64_t rows = 8 * scratch(alone);
  EXPECT_GT(scratch(capped), rows) << "one block is split";
  EXPECT_LE(scratch(capped), rows + (40 << 10));
  EXPECT_GT(scratch(free), rows + 2 * (40 << 10));
}

TEST(Scratch, TheLargestStepKeepsToTheCap) {
  const cpu::AttentionKernel& kernel = cpu::attention_kernel(*cpu::choose_isa("avx2"));
  const StepLimits limits{
      .rows = 4096, .slots = 1 << 20, .query_heads = 64, .kv_heads = 8, .head_dim = 128};
  cpu::Attention alone(kernel, 1), many(kernel, 64);
  ASSERT_TRUE(alone.reserve(limits));
  ASSERT_TRUE(many.reserve(limits));
  EXPECT_EQ(many.scratch_bytes(), 64 * alone.scratch_bytes() + cpu::Attention::kPartialBytes);
}

TEST(Scratch, WhatNoMemoryHoldsIsRefused) {
  auto backend = *make_backend("cpu", {.threads = 1});
  const auto refused = backend->reserve({.rows = 1,
                                         .slots = 1,
                                         .query_heads = std::numeric_limits<int32_t>::max(),
                                         .kv_heads = 1,
                                         .head_dim = 1 << 20});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  // It works on, with what a step needs.
  Step step(1, 2, 32, 3, 40), again(1, 2, 32, 3, 40);
  auto fresh = *make_backend("cpu", {.threads = 1});
  EXPECT_EQ(step.run(*backend), again.run(*fresh));
}

}  // namespace
}  // namespace coppice::ops
