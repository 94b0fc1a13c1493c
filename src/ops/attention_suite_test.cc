// The suite that judges attention of every backend and of every instruction set of it that this
// machine has: against float64, and every plan of the same rows against each other.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ops/attention_suite.h"

namespace coppice::ops {
namespace {

constexpr double kInt8Bar = 2e-2;  // against what was written

// A random forest: shared inner nodes of whole pages, private leaves of any length.
void grow(Case& c, const Shape3& shape, bool ragged, int32_t parent, int depth) {
  const auto counts = [&](bool leaf) {
    std::vector<int32_t> n(ragged ? static_cast<size_t>(shape.lists()) : 1);
    for (int32_t& x : n) x = leaf ? c.uniform(0, 90) : 16 * c.uniform(0, 12);
    return n;
  };
  const int32_t children = c.uniform(1, 3);
  for (int32_t i = 0; i < children; ++i) {
    if (depth > 0 && c.uniform(0, 2) > 0) {
      grow(c, shape, ragged, c.add_node(parent, counts(false)), depth - 1);
    } else {
      const int32_t leaf = c.add_node(parent, counts(true));
      const int32_t slots = c.forest().path_slots(leaf, 0);
      c.forest().add_sequence(leaf, std::min(std::max(1, slots), c.uniform(0, 3) ? 1 : 21));
    }
  }
}

TEST_P(AttentionSuite, LengthsAroundEveryGrid) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  for (const int32_t length : {0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025}) {
    SCOPED_TRACE(length);
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(length));
    for (int i = 0; i < 2; ++i) c.forest().add_sequence(c.add_node(-1, {length}), 1);
    judge(c, params_for(shape), shape.kv_heads);
  }
}

TEST_P(AttentionSuite, SharedLengthsAroundEveryGrid) {
  const Shape3 shape{.kv_heads = 1, .group = 1, .dim = 32};
  for (const int32_t shared : {16, 48, 64, 80, 496, 512, 528, 1024}) {
    for (const int32_t own : {0, 1, 16, 17, 65}) {
      SCOPED_TRACE(testing::Message() << shared << " + " << own);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(shared + own));
      const int32_t root = c.add_node(-1, {shared});
      for (int i = 0; i < 7; ++i) c.forest().add_sequence(c.add_node(root, {own}), 1);
      judge(c, params_for(shape), shape.kv_heads, 1);
    }
  }
}

TEST_P(AttentionSuite, EveryGroupSize) {
  for (int32_t group = 1; group <= 16; ++group) {
    SCOPED_TRACE(group);
    const Shape3 shape{.kv_heads = 2, .group = group, .dim = 32};
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(group));
    const int32_t root = c.add_node(-1, {96});
    for (const int32_t own : {5, 40, 23}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    judge(c, params_for(shape), shape.kv_heads, 1);
  }
}

TEST_P(AttentionSuite, EveryHeadDimAndPageType) {
  for (const DType type : {DType::kBF16, DType::kF32, DType::kI8}) {
    for (const int32_t dim : {1, 8, 17, 24, 32, 64, 80, 96, 128, 250, 256}) {
      const Shape3 shape{.kv_heads = 1, .group = 3, .dim = dim, .type = type};
      SCOPED_TRACE(testing::Message() << dtype_name(type) << " " << dim);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(dim));
      const int32_t root = c.add_node(-1, {80});
      for (const int32_t own : {1, 37, 80}) c.forest().add_sequence(c.add_node(root, {own}), 1);
      judge(c, params_for(shape), shape.kv_heads, 1);
    }
  }
}

TEST_P(AttentionSuite, RandomTreesEvenAndRagged) {
  for (uint32_t seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    const bool ragged = seed % 2 == 1;
    const Shape3 shape{.layers = 2,
                       .kv_heads = 1 + static_cast<int32_t>(seed % 3),
                       .group = 1 + static_cast<int32_t>(seed % 5),
                       .dim = 32};
    Case c(subject(), shape, Data::kOrdinary, seed, 6000);
    grow(c, shape, ragged, -1, 4);
    const int32_t window = seed % 4 < 2 ? 0 : c.uniform(1, 200);
    judge(c, params_for(shape, static_cast<int32_t>(seed / 2 % 2), window), shape.kv_heads);
  }
}

// int8 pages: near what they hold to the arithmetic's own rounding, and near what was written to
// the type's.
TEST_P(AttentionSuite, Int8IsNearWhatWasWritten) {
  for (const int32_t dim : {32, 64, 128}) {
    SCOPED_TRACE(dim);
    const Shape3 shape{.kv_heads = 2, .group = 4, .dim = dim, .type = DType::kI8};
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(dim));
    const int32_t root = c.add_node(-1, {640});
    for (const int32_t own : {1, 37, 80}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    c.make_queries();
    const AttentionParams params = params_for(shape);
    const Case::Output got = c.run(c.forest().plan(shape.kv_heads, kTwoPhase, c.random()), params);
    EXPECT_LE(relative_error(got, c.expected(params)), bar(c.type()));
    EXPECT_LE(relative_error(got, c.expected(params, Case::Values::kWritten)), kInt8Bar);
  }
}

TEST_P(AttentionSuite, Int8TreesWindowsAndDiagonals) {
  for (uint32_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    const Shape3 shape{.layers = 2,
                       .kv_heads = 2,
                       .group = 1 + static_cast<int32_t>(seed % 5),
                       .dim = 48,
                       .type = DType::kI8};
    Case c(subject(), shape, seed % 3 == 2 ? Data::kLargeKeys : Data::kOrdinary, seed, 6000);
    grow(c, shape, seed % 2 == 1, -1, 4);
    const int32_t window = seed % 4 < 2 ? 0 : c.uniform(1, 200);
    judge(c, params_for(shape, static_cast<int32_t>(seed / 2 % 2), window), shape.kv_heads);
  }
}

TEST_P(AttentionSuite, PrefillDiagonals) {
  const Shape3 shape{.kv_heads = 1, .group = 4, .dim = 32};
  for (const int32_t rows : {1, 7, 64, 150}) {
    for (const int32_t window : {0, 33}) {
      SCOPED_TRACE(testing::Message() << rows << " rows, window " << window);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(rows));
      const int32_t root = c.add_node(-1, {496});
      c.forest().add_sequence(c.add_node(root, {rows + 3}), rows);
      c.forest().add_sequence(c.add_node(root, {9}), 1);
      judge(c, params_for(shape, 0, window), shape.kv_heads, 1);
    }
  }
}

TEST_P(AttentionSuite, Windows) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  // Within a page, a page, a range, each with its neighbours, and more than the context.
  for (const int32_t window : {1, 2, 15, 16, 17, 64, 511, 512, 513, 600, 1024, 1025, 5000}) {
    SCOPED_TRACE(window);
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(window));
    const int32_t root = c.add_node(-1, {1024});
    for (const int32_t own : {0, 1, 30, 200}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    judge(c, params_for(shape, 0, window), shape.kv_heads, 1);
  }
}

TEST_P(AttentionSuite, HardData) {
  for (const Data data : {Data::kLargeKeys, Data::kEqualScores}) {
    const Shape3 shape{.kv_heads = 2, .group = 2, .dim = 64};
    Case c(subject(), shape, data, 7);
    const int32_t root = c.add_node(-1, {640});
    const int32_t empty = c.add_node(root, {0});
    for (const int32_t own : {0, 3, 100}) c.forest().add_sequence(c.add_node(empty, {own}), 1);
    judge(c, params_for(shape), shape.kv_heads);
  }
}

TEST_P(AttentionSuite, ARowThatSeesNothingIsZero) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 1);
  c.forest().add_sequence(c.add_node(-1, {0}), 1);
  c.make_queries();
  const auto out = c.run(c.forest().plan(1, kTwoPhase, c.random()), params_for(shape));
  for (const float x : out[0]) EXPECT_EQ(x, 0.0f);
}

// A slot that was given NaN and infinity is met by rows that do not see it: those before it, and
// those whose window has passed it.
TEST_P(AttentionSuite, WhatARowDoesNotSeeDoesNotReachIt) {
  constexpr int32_t kRows = 21, kSlots = 40;
  for (const DType type : {DType::kBF16, DType::kF32, DType::kI8}) {
    const Shape3 shape{.kv_heads = 2, .group = 3, .dim = 32, .type = type};
    const auto row = static_cast<ptrdiff_t>(shape.kv_heads * shape.group * shape.dim);
    for (const int32_t window : {0, 4}) {
      SCOPED_TRACE(testing::Message() << dtype_name(type) << ", window " << window);
      Case c(subject(), shape, Data::kOrdinary, 21);
      const int32_t node = c.add_node(-1, {kSlots});
      c.forest().add_sequence(node, kRows);
      c.make_queries();
      const CasePlan plan = c.forest().plan(shape.kv_heads, kTwoPhase, c.random());
      const AttentionParams params = params_for(shape, 0, window);
      const std::vector<float> before = c.run(plan, params)[0];
      // Row r sees slots up to kSlots - kRows + r: this one is row 10's own.
      c.spoil(node, kSlots - kRows + 10);
      const std::vector<float> after = c.run(plan, params)[0];
      EXPECT_TRUE(std::equal(before.begin(), before.begin() + 10 * row, after.begin()));
      EXPECT_FALSE(std::equal(before.begin() + 10 * row, before.begin() + 11 * row,
                              after.begin() + 10 * row))
          << "its own row sees it";
      if (window == 0) continue;
      EXPECT_TRUE(std::equal(before.begin() + (10 + window) * row, before.end(),
                             after.begin() + (10 + window) * row));
    }
  }
}

TEST_P(AttentionSuite, OneAndTwoThreadsAndManyAreBitEqual) {
  // One head: fewer items than threads, so slots are split at multiples of R.
  for (const auto& [kv_heads, type] :
       {std::pair(1, DType::kBF16), {3, DType::kBF16}, {1, DType::kI8}}) {
    const Shape3 shape{.kv_heads = kv_heads, .group = 4, .dim = 64, .type = type};
    Case c(subject(), shape, Data::kOrdinary, 3, 2000);
    const int32_t root = c.add_node(-1, {2064});
    for (const int32_t own : {1, 700, 65}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    c.make_queries();
    const CasePlan plan = c.forest().plan(kv_heads, kTwoPhase, c.random());
    // Windows: one slot, a page, over a range's border, more than any context.
    for (const int32_t window : {0, 1, 16, 700, 5000}) {
      SCOPED_TRACE(testing::Message() << kv_heads << " heads, window " << window);
      const AttentionParams params = params_for(shape, 0, window);
      const Case::Output one = c.run(plan, params);
      EXPECT_LE(relative_error(one, c.expected(params)), bar(c.type()));
      for (const int threads : {2, 5}) {
        const auto team = another(threads);
        EXPECT_TRUE(same_bits(one, c.run(*team, plan, params))) << threads << " threads";
      }
    }
  }
}

TEST_P(AttentionSuite, ManyRowsAreCutIntoBlocks) {
  const Shape3 shape{.kv_heads = 1, .group = 16, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 5);
  const int32_t root = c.add_node(-1, {160});
  for (int i = 0; i < 30; ++i) c.forest().add_sequence(c.add_node(root, {1 + i}), 1);
  judge(c, params_for(shape), shape.kv_heads, 1);
}

TEST_P(AttentionSuite, NoRowsDoesNothing) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 1);
  AttentionPlan plan;
  plan.kv_heads = 1;
  float nothing = 1.0f;
  const TensorView empty(&nothing, DType::kF32, {0, 2, 32});
  subject().attention(empty, params_for(shape), plan, c.forest().arena(), empty);
  EXPECT_EQ(nothing, 1.0f);
}

INSTANTIATE_TEST_SUITE_P(, AttentionSuite, testing::ValuesIn(kSubjects),
                         [](const auto& subject) { return test_name(subject.param); });

// --- the canary: a fold in another order must be seen by what the suite compares

TEST(AttentionCanary, ReversedFoldIsAccurateAndNotBitEqual) {
  const auto subject = reversed_subject();
  const Shape3 shape{.kv_heads = 2, .group = 2, .dim = 32};
  int differing = 0;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    Case c(*subject, shape, Data::kOrdinary, seed);
    grow(c, shape, false, -1, 4);
    c.make_queries();
    const auto whole = c.run(c.forest().plan(2, kTwoPhase, c.random()), params_for(shape));
    EXPECT_LE(relative_error(whole, c.expected(params_for(shape))), kBar);
    const auto cut = c.run(c.forest().plan(2, kCut, c.random()), params_for(shape));
    differing += same_bits(whole, cut) ? 0 : 1;
  }
  EXPECT_GE(differing, 6);
}

// The two instruction sets without a bf16 dot promise the same bits.
TEST(AttentionKernels, Avx2AndAvx512AreBitEqual) {
  const auto avx2 = make_subject("kernel/avx2", 1), avx512 = make_subject("kernel/avx512", 1);
  if (avx2 == nullptr || avx512 == nullptr) {
    GTEST_SKIP() << "compares kernel/avx2 with kernel/avx512; this CPU has "
                 << (avx2 == nullptr ? "neither" : "only the first");
  };
  for (const DType type : {DType::kBF16, DType::kF32, DType::kI8}) {
    SCOPED_TRACE(dtype_name(type));
    const Shape3 shape{.kv_heads = 2, .group = 3, .dim = 64, .type = type};
    Case c(*avx2, shape, Data::kOrdinary, 11);
    grow(c, shape, false, -1, 4);
    c.make_queries();
    const CasePlan plan = c.forest().plan(2, kTwoPhase, c.random());
    EXPECT_TRUE(same_bits(c.run(plan, params_for(shape)), c.run(*avx512, plan, params_for(shape))));
  }
}

}  // namespace
}  // namespace coppice::ops
