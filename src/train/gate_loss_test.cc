// The losses and the page footprint against numbers made by hand.
#include "train/gate_loss.h"

#include <cmath>

#include <gtest/gtest.h>

namespace coppice::train {
namespace {

TEST(GateLoss, FootprintWeightIsTheLifeBeyondTheWindow) {
  const auto w = footprint_weights(torch::tensor({int64_t{8}, int64_t{3}}), 8, 2);
  // n = 8, window 2: 1 - 2/8, 1 - 2/7, ..., 1 - 2/3, 0, 0. n = 3: 1 - 2/3, 0, 0, then nothing.
  for (int64_t t = 0; t < 8; ++t) {
    const double life = static_cast<double>(8 - t);
    EXPECT_NEAR(w[0][t].item<double>(), 1 - std::min(1.0, 2 / life), 1e-6) << t;
    EXPECT_NEAR(w[1][t].item<double>(), t == 0 ? 1 - 2.0 / 3 : 0.0, 1e-6) << t;
  }
}

TEST(GateLoss, KeepRateIsWeightedAndCountsSinks) {
  // One sequence, two layers, one head; the sink (t = 0) counts as kept though the gate drops it.
  const auto kept = torch::tensor({0.0f, 1.0f, 0.0f, 0.0f, 1.0f, 1.0f}).view({1, 2, 1, 3});
  const auto weights = torch::tensor({0.5f, 0.25f, 0.25f}).view({1, 3});
  // Layer 0 keeps {sink, 1}: 0.75; layer 1 keeps {sink, 1, 2}: 1.
  EXPECT_NEAR(keep_rate(kept, weights, 1)[0].item<double>(), 0.875, 1e-6);
  EXPECT_NEAR(keep_rate(kept, weights, 0)[0].item<double>(), 0.5 * 0 + 0.25 * 1 + 0.25 * 0.5, 1e-6);
}

TEST(GateLoss, PolarisationIsWithinTheSequence) {
  auto p = torch::full({1, 1, 1, 4}, 0.5f);
  p[0][0][0][1] = 1.0f;
  EXPECT_NEAR(polarisation(p, torch::tensor({int64_t{2}})).item<double>(), 0.125, 1e-6);
}

TEST(GateLoss, DistillationIsTheDivergence) {
  const auto teacher = torch::tensor({0.0f, std::log(3.0f)}).view({1, 2}).expand({2, 2});
  const auto student = torch::tensor({0.0f, 0.0f, 0.0f, std::log(3.0f)}).view({2, 2});
  // Teacher (1/4, 3/4) against (1/2, 1/2), and against itself.
  const double kl = 0.25 * std::log(0.5) + 0.75 * std::log(1.5);
  EXPECT_NEAR(distillation(teacher, student).item<double>(), 0.5 * kl, 1e-6);
}

TEST(GateLoss, PageFootprintCountsWholePages) {
  // 10 tokens, pages of 4 (3 dense), window 3, 1 sink. The gate keeps 4 and 9.
  auto kept = torch::zeros({1, 1, 10});
  kept[0][0][4] = 1;
  kept[0][0][9] = 1;
  // Kept 0, 4, 9: one page. Dropped 1 2 3 5 | 6 7 8: of the last 3 positions 7 and 8 are dropped
  // slots 5 and 6, in the second page: one page.
  EXPECT_DOUBLE_EQ(page_footprint(kept, {3, 1}, 4), 2.0 / 3);
  // A window of 6 reaches back to 5, slot 3 of the dropped, in the first page.
  EXPECT_DOUBLE_EQ(page_footprint(kept, {6, 1}, 4), 1.0);
  EXPECT_DOUBLE_EQ(page_footprint(torch::ones({2, 2, 10}), {3, 1}, 4), 1.0);
  // A window of 1 whose only position is kept holds no dropped page.
  EXPECT_DOUBLE_EQ(page_footprint(kept, {1, 1}, 4), 1.0 / 3);
}

}  // namespace
}  // namespace coppice::train
