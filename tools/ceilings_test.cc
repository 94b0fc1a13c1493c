#include "ceilings.h"

#include <gtest/gtest.h>

namespace coppice::tools {
namespace {

// All quantised weights are multiplied as bytes: one ceiling holds for all of them.
TEST(Ceilings, QuantisedTypesShareThatOfByteProducts) {
  const Ceilings ceilings{.f32_gflops = 1, .bf16_gflops = 2, .int8_gops = 3};
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    EXPECT_EQ(ceilings.peak_gflops(type), 3) << dtype_name(type);
  }
  EXPECT_EQ(ceilings.peak_gflops(DType::kF32), 1);
  EXPECT_EQ(ceilings.peak_gflops(DType::kBF16), 2);
}

TEST(Ceilings, TheFigureThatRoseMostCounts) {
  const Ceilings before{.f32_gflops = 100,
                        .bf16_gflops = 200,
                        .int8_gops = 300,
                        .exp_grate = 4,
                        .bandwidth_gbps = 50};
  Ceilings now = before;
  EXPECT_EQ(now.risen_over(before), 0);
  now.f32_gflops = 110;
  now.bandwidth_gbps = 60;
  EXPECT_NEAR(now.risen_over(before), 0.2, 1e-12);
}

}  // namespace
}  // namespace coppice::tools
