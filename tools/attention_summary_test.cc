#include "attention_summary.h"

#include <gtest/gtest.h>

#include <cmath>

namespace coppice::tools {
namespace {

constexpr Ceilings kCeilings{
    .f32_gflops = 100, .bf16_gflops = 200, .exp_grate = 10, .bandwidth_gbps = 40};

// Two-phase takes 100 us and 80 at p10; what must be read takes `read_us` at 40 GB/s.
AttentionMeasured measured(double read_us) {
  AttentionMeasured out;
  out.kv_type = DType::kBF16;
  out.costs = {{.flops = 1, .bytes = read_us * 40e3, .exps = 1}};
  out.json = {{"two_phase_us", 100.0},
              {"two_phase_us_p10", 80.0},
              {"per_sequence_us", 150.0},
              {"per_sequence_seq_outer_us", 120.0},
              {"per_sequence_unshared_us", nullptr}};
  hold_against(kCeilings, out);
  return out;
}

const PresetRow kRow{"1,256/256,32", "PAT", {}}, kTwin{"1,256/256,32", "FastTree", {}};

TEST(AttentionSummary, CasesOfOneNameStayTwo) {
  AttentionSummary summary;
  summary.add(kRow, measured(20));
  summary.add(kTwin, measured(80));
  const auto line = summary.json("trees")["summary"];
  EXPECT_EQ(line["preset"], "trees");
  EXPECT_EQ(line["cases"], 2);
  ASSERT_EQ(line["floor_fractions"].size(), 2U);
  EXPECT_EQ(line["floor_fractions"][0]["origin"], "PAT");
  EXPECT_DOUBLE_EQ(line["floor_fractions"][0]["floor_fraction"].get<double>(), 0.2);
  EXPECT_EQ(line["floor_fractions"][1]["origin"], "FastTree");
  EXPECT_DOUBLE_EQ(line["floor_fractions"][1]["floor_fraction"].get<double>(), 0.8);
  EXPECT_DOUBLE_EQ(line["floor_fractions"][1]["floor_fraction_p10"].get<double>(), 1.0);
  EXPECT_NEAR(line["floor_fraction"].get<double>(), 0.4, 1e-12);
  EXPECT_NEAR(line["floor_fraction_p10"].get<double>(), 0.5, 1e-12);
  EXPECT_NEAR(line["best_shared_pages_ratio"].get<double>(), 1.2, 1e-12);
  EXPECT_TRUE(line["unshared_ratio"].is_null());
  EXPECT_EQ(line["unshared_cases"], 0);
}

TEST(AttentionSummary, HigherCeilingsLowerEveryFraction) {
  AttentionSummary summary;
  summary.add(kRow, measured(20));
  summary.add(kTwin, measured(80));
  Ceilings faster = kCeilings;
  faster.bandwidth_gbps *= 2;
  summary.hold_against(faster);
  const auto line = summary.json("trees")["summary"];
  EXPECT_DOUBLE_EQ(line["floor_fractions"][0]["floor_fraction"].get<double>(), 0.1);
  EXPECT_NEAR(line["floor_fraction"].get<double>(), 0.2, 1e-12);
  EXPECT_NEAR(line["floor_fraction_p10"].get<double>(), 0.25, 1e-12);
}

// Products and exponentials wait for one another, reads for neither.
TEST(HoldAgainst, TheSlowerOfReadsAndArithmeticCounts) {
  AttentionMeasured one = measured(20);
  one.costs[0].flops = 200e3 * 30;  // 30 us at 200 GFLOP/s
  one.costs[0].exps = 10e3 * 10;    // 10 us at 10 a ns
  hold_against(kCeilings, one);
  EXPECT_DOUBLE_EQ(one.json["floor_us"].get<double>(), 40.0);
  EXPECT_DOUBLE_EQ(one.json["peak_gflops"].get<double>(), 200.0);
  one.kv_type = DType::kF32;
  hold_against(kCeilings, one);
  EXPECT_DOUBLE_EQ(one.json["floor_us"].get<double>(), 70.0);
}

TEST(AttentionSummary, NothingHasNoMeans) {
  const auto line = AttentionSummary().json("trees")["summary"];
  EXPECT_EQ(line["cases"], 0);
  EXPECT_TRUE(line["floor_fraction"].is_null());
}

}  // namespace
}  // namespace coppice::tools
