// The suite over plans with gated rows: kept slots that end anywhere in every list, and dropped
// slots of a sequence's own behind them, beside rows of which nothing is ever dropped.
#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "ops/attention_suite.h"

namespace coppice::ops {
namespace {

constexpr DType kTypes[] = {DType::kBF16, DType::kF32, DType::kI8};

// Any decisions over the rows, each list its own, and any dropped slots still to be seen.
ForestGate random_gate(Case& c, const Shape3& shape, int32_t node, int32_t rows) {
  ForestGate gate;
  std::vector<int32_t> starts, counts;
  for (int32_t list = 0; list < shape.lists(); ++list) {
    const int32_t slots = c.forest().path_slots(node, list);
    const int32_t start = 16 * c.uniform(0, 40);
    const int32_t before = c.uniform(0, c.uniform(0, 3) > 0 ? 60 : 540);
    std::vector<bool> kept;
    int32_t last = slots, end = start + before, first = start + c.uniform(0, before);
    for (int32_t r = 0; r < rows; ++r) {
      kept.push_back(last > 0 && c.uniform(0, 1) == 0);
      last -= kept.back() ? 1 : 0;
    }
    for (const bool is_kept : kept) {
      (is_kept ? last : end) += 1;
      first = c.uniform(0, 7) == 0 ? end : std::min(end, first + c.uniform(0, 2));
      first = std::max(first, end - kFoldRange);
      gate.last.push_back(last);
      gate.dropped_first.push_back(first);
      gate.dropped_last.push_back(end);
    }
    starts.push_back(start);
    counts.push_back(end - start);
  }
  gate.dropped = c.add_dropped(std::move(starts), std::move(counts));
  return gate;
}

// One row that sees all kept slots of its path, and the dropped ones [first, last), the same of
// every list.
ForestGate one_row_gate(Case& c, const Shape3& shape, int32_t node, int32_t first, int32_t last) {
  const auto lists = static_cast<size_t>(shape.lists());
  const int32_t start = first / 16 * 16;
  ForestGate gate;
  gate.dropped =
      c.add_dropped(std::vector<int32_t>(lists, start), std::vector<int32_t>(lists, last - start));
  for (int32_t list = 0; list < shape.lists(); ++list) {
    gate.last.push_back(c.forest().path_slots(node, list));
  }
  gate.dropped_first.assign(lists, first);
  gate.dropped_last.assign(lists, last);
  return gate;
}

void add_gated(Case& c, const Shape3& shape, int32_t node, int32_t rows) {
  c.forest().add_gated_sequence(node, rows, random_gate(c, shape, node, rows));
}

// Inner nodes that end anywhere in a page; two sequences of three are gated, some end at an inner
// node. Rows of the others see what ungated rows see.
void grow(Case& c, const Shape3& shape, int32_t parent, int depth) {
  const auto counts = [&](int32_t most) {
    std::vector<int32_t> n(static_cast<size_t>(shape.lists()));
    for (int32_t& x : n) x = c.uniform(0, most);
    return n;
  };
  const auto add = [&](int32_t node) {
    const int32_t rows = c.uniform(0, 3) > 0 ? 1 : 21;
    const bool has_room = c.forest().path_slots(node, 0) >= rows;
    if (c.uniform(0, 2) == 0 && has_room) return c.forest().add_sequence(node, rows);
    add_gated(c, shape, node, rows);
  };
  const int32_t children = c.uniform(1, 3);
  for (int32_t i = 0; i < children; ++i) {
    const bool inner = depth > 0 && c.uniform(0, 2) > 0;
    const int32_t node = c.add_node(parent, counts(inner ? 190 : 90));
    if (!inner || c.uniform(0, 3) == 0) add(node);
    if (inner) grow(c, shape, node, depth - 1);
  }
}

class GatedAttentionSuite : public AttentionSuite {};

TEST_P(GatedAttentionSuite, RandomTreesOfGatedAndUngatedSequences) {
  for (uint32_t seed = 0; seed < 12; ++seed) {
    SCOPED_TRACE(seed);
    const Shape3 shape{.layers = 2,
                       .kv_heads = 1 + static_cast<int32_t>(seed % 3),
                       .group = 1 + static_cast<int32_t>(seed % 5),
                       .dim = 32,
                       .type = kTypes[seed / 2 % 3]};
    const bool large = shape.type != DType::kF32 && seed % 4 == 1;
    Case c(subject(), shape, large ? Data::kLargeKeys : Data::kOrdinary, seed, 12000);
    grow(c, shape, -1, 3);
    judge(c, params_for(shape, static_cast<int32_t>(seed % 2)), shape.kv_heads);
  }
}

TEST_P(GatedAttentionSuite, DroppedRangesAroundEveryGrid) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  for (const int32_t kept : {0, 1, 16, 17, 512, 513}) {
    for (const int32_t first : {0, 3, 16, 480, 511, 512}) {
      SCOPED_TRACE(testing::Message() << kept << " kept, dropped from " << first);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(kept + first));
      const int32_t root = c.add_node(-1, {kept});
      for (const int32_t seen : {0, 1, 13, 16, 17, 64, 65, 512}) {
        const int32_t leaf = c.add_node(root, {seen % 3});
        const ForestGate gate = one_row_gate(c, shape, leaf, first, first + seen);
        c.forest().add_gated_sequence(leaf, 1, gate);
      }
      judge(c, params_for(shape), shape.kv_heads, 1);
    }
  }
}

// How a list was cut at birth has no part in it: wherever its numbers stand to a multiple of R.
TEST_P(GatedAttentionSuite, DroppedSlotsAreOneRangeWhateverTheirNumbers) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    SCOPED_TRACE(seed);
    const Shape3 shape{.kv_heads = 2, .group = 3, .dim = 64};
    Case c(subject(), shape, Data::kOrdinary, seed);
    const int32_t root = c.add_node(-1, {700, 90});
    for (const int32_t seen : {20, 300, 512}) {
      const int32_t leaf = c.add_node(root, {5, 40});
      const ForestGate gate = one_row_gate(c, shape, leaf, 7, 7 + seen);
      c.forest().add_gated_sequence(leaf, 1, gate);
    }
    c.make_queries();
    const auto shifted = [&](int32_t by) {
      const PlanStyle style{.dropped_shift = by};
      return c.run(c.forest().plan(shape.kv_heads, style, c.random()), params_for(shape));
    };
    const Case::Output want = shifted(0);
    EXPECT_LE(relative_error(want, c.expected(params_for(shape))), bar(c.type()));
    for (const int32_t by : {16, 48, 256, 496, 512, 1008}) {
      EXPECT_TRUE(same_bits(want, shifted(by))) << by;
    }
  }
}

TEST_P(GatedAttentionSuite, EveryHeadDimAndPageType) {
  for (const DType type : kTypes) {
    for (const int32_t dim : {17, 64, 250}) {
      const Shape3 shape{.kv_heads = 2, .group = 3, .dim = dim, .type = type};
      SCOPED_TRACE(testing::Message() << dtype_name(type) << " " << dim);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(dim));
      const int32_t root = c.add_node(-1, {83, 70});
      for (const int32_t own : {1, 37}) {
        add_gated(c, shape, c.add_node(root, {own, 2 * own}), own);
        c.forest().add_sequence(c.add_node(root, {own}), 1);
      }
      judge(c, params_for(shape), shape.kv_heads, 1);
    }
  }
}

TEST_P(GatedAttentionSuite, PrefillDiagonals) {
  const Shape3 shape{.kv_heads = 2, .group = 2, .dim = 32};
  for (const int32_t rows : {7, 100}) {
    SCOPED_TRACE(rows);
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(rows));
    const int32_t root = c.add_node(-1, {500, 340});
    add_gated(c, shape, c.add_node(root, {rows + 3, rows / 2}), rows);
    c.forest().add_sequence(c.add_node(root, {rows + 9}), rows);
    judge(c, params_for(shape), shape.kv_heads, 1);
  }
}

TEST_P(GatedAttentionSuite, ManyRowsAreCutIntoBlocks) {
  const Shape3 shape{.kv_heads = 1, .group = 16, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 5, 4000);
  const int32_t root = c.add_node(-1, {150});
  for (int i = 0; i < 30; ++i) {
    const int32_t leaf = c.add_node(root, {1 + i});
    if (i % 3 == 0) {
      c.forest().add_sequence(leaf, 1);
    } else {
      add_gated(c, shape, leaf, 1 + i % 4);
    }
  }
  judge(c, params_for(shape), shape.kv_heads, 1);
}

// Slots are split at multiples of R; the dropped ones are the last split's, whichever that is.
TEST_P(GatedAttentionSuite, OneAndTwoThreadsAndManyAreBitEqual) {
  for (const auto& [kv_heads, type] :
       {std::pair(1, DType::kBF16), {3, DType::kF32}, {1, DType::kI8}}) {
    const Shape3 shape{.kv_heads = kv_heads, .group = 4, .dim = 64, .type = type};
    Case c(subject(), shape, Data::kOrdinary, 3, 3000);
    const int32_t root = c.add_node(-1, {2069});
    for (const int32_t own : {1, 700, 65}) {
      add_gated(c, shape, c.add_node(root, {own}), 1);
      c.forest().add_sequence(c.add_node(root, {own}), 1);
    }
    add_gated(c, shape, c.add_node(-1, {0}), 1);
    c.make_queries();
    const CasePlan plan = c.forest().plan(kv_heads, kTwoPhase, c.random());
    const Case::Output one = c.run(plan, params_for(shape));
    EXPECT_LE(relative_error(one, c.expected(params_for(shape))), bar(c.type()));
    for (const int threads : {2, 3, 5, 9}) {
      const auto team = another(threads);
      EXPECT_TRUE(same_bits(one, c.run(*team, plan, params_for(shape)))) << threads << " threads";
    }
  }
}

TEST_P(GatedAttentionSuite, DroppedSlotsAloneAndNoneAtAll) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 1);
  for (const int32_t seen : {0, 20}) {
    const int32_t node = c.add_node(-1, {0});
    c.forest().add_gated_sequence(node, 1, one_row_gate(c, shape, node, 5, 5 + seen));
  }
  judge(c, params_for(shape), 1);
  const auto out = c.run(c.forest().plan(1, kTwoPhase, c.random()), params_for(shape));
  for (const float x : out[0]) EXPECT_EQ(x, 0.0f);
  for (const float x : out[1]) EXPECT_NE(x, 0.0f);
}

// A dropped slot that was given NaN and infinity is met by the rows beside those that see it.
TEST_P(GatedAttentionSuite, WhatARowDoesNotSeeDoesNotReachIt) {
  constexpr int32_t kRows = 21, kBefore = 9, kWindow = 4;
  for (const DType type : kTypes) {
    SCOPED_TRACE(dtype_name(type));
    const Shape3 shape{.kv_heads = 2, .group = 3, .dim = 32, .type = type};
    Case c(subject(), shape, Data::kOrdinary, 21);
    // Every row drops its own token: row r sees slots up to kBefore + r of the dropped ones.
    const int32_t node = c.add_node(-1, {40});
    ForestGate gate;
    gate.dropped = c.add_dropped({32, 32}, {kBefore + kRows, kBefore + kRows});
    for (int32_t i = 0; i < shape.lists() * kRows; ++i) {
      gate.last.push_back(40);
      gate.dropped_last.push_back(32 + kBefore + i % kRows + 1);
      gate.dropped_first.push_back(gate.dropped_last.back() - kWindow);
    }
    const int32_t dropped = gate.dropped;
    c.forest().add_gated_sequence(node, kRows, std::move(gate));
    c.make_queries();
    const CasePlan plan = c.forest().plan(shape.kv_heads, kTwoPhase, c.random());
    const std::vector<float> before = c.run(plan, params_for(shape))[0];
    c.spoil(dropped, kBefore + 10);
    const std::vector<float> after = c.run(plan, params_for(shape))[0];
    const size_t row = before.size() / kRows;
    for (size_t r = 0; r < kRows; ++r) {
      const auto from = static_cast<ptrdiff_t>(r * row), to = static_cast<ptrdiff_t>((r + 1) * row);
      EXPECT_EQ(std::equal(before.begin() + from, before.begin() + to, after.begin() + from),
                r < 10 || r >= 10 + kWindow)
          << "row " << r;
    }
  }
}

TEST_P(GatedAttentionSuite, AWindowIsRefused) {
  const Shape3 shape{.kv_heads = 1, .group = 1, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 1);
  const int32_t node = c.add_node(-1, {20});
  c.forest().add_gated_sequence(node, 1, one_row_gate(c, shape, node, 0, 3));
  c.make_queries();
  const CasePlan plan = c.forest().plan(1, kTwoPhase, c.random());
  EXPECT_DEATH(c.run(plan, params_for(shape, 0, 8)), "window == 0");
}

INSTANTIATE_TEST_SUITE_P(, GatedAttentionSuite, testing::ValuesIn(kSubjects),
                         [](const auto& subject) { return test_name(subject.param); });

}  // namespace
}  // namespace coppice::ops
