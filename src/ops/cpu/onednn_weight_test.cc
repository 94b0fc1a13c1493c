#include "ops/cpu/onednn_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "ops/allocation_counter.h"
#include "ops/cpu/isa.h"

namespace coppice::ops::cpu {
namespace {

// The types this CPU's oneDNN multiplies in: bf16 needs AVX-512.
std::vector<DType> types() {
  if (choose_isa("avx512")) return {DType::kF32, DType::kBF16};
  return {DType::kF32};
}

std::vector<float> random_values(int64_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = to_float(to_bf16(uniform(engine)));
  return values;
}

class OneDnnTest : public testing::TestWithParam<DType> {
 protected:
  OneDnnTest() : onednn_(std::move(*OneDnn::make(pool_.threads()))) {}

  std::unique_ptr<OneDnnWeight> pack(const std::vector<float>& w, int64_t rows, int64_t cols) {
    auto weight =
        OneDnnWeight::pack(*onednn_, pool_, {w.data(), DType::kF32, {rows, cols}}, GetParam());
    EXPECT_TRUE(weight) << weight.error().message;
    return std::move(*weight);
  }

  std::vector<float> multiply(const OneDnnWeight& weight, const std::vector<float>& x,
                              int64_t first, int64_t rows, const std::vector<float>& bias) {
    std::vector<float> out(static_cast<size_t>(rows * weight.rows()), NAN);
    const TensorView offsets =
        bias.empty() ? TensorView() : TensorView(bias.data(), DType::kF32, {weight.rows()});
    weight.multiply(pool_, {x.data() + first * weight.cols(), DType::kF32, {rows, weight.cols()}},
                    offsets, {out.data(), DType::kF32, {rows, weight.rows()}});
    return out;
  }

  ThreadPool pool_{2};
  std::unique_ptr<OneDnn> onednn_;
};
INSTANTIATE_TEST_SUITE_P(Types, OneDnnTest, testing::ValuesIn(types()),
                         [](const auto& type) { return std::string(dtype_name(type.param)); });

TEST_P(OneDnnTest, FollowsTheFormulaAcrossSlicesAndPieces) {
  const int64_t cols = 70;
  for (const int64_t rows : {1, 64, 255, 256, 257, 600}) {
    const auto w = random_values(rows * cols, 1), bias = random_values(rows, 2);
    const auto x = random_values(200 * cols, 3);
    const auto weight = pack(w, rows, cols);
    for (const int64_t count : {1, 2, 3, 7, 33, 63, 64, 65, 127, 200}) {
      const auto out = multiply(*weight, x, 0, count, count % 2 == 0 ? bias : std::vector<float>{});
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t n = 0; n < rows; ++n) {
          double sum = count % 2 == 0 ? double{bias[static_cast<size_t>(n)]} : 0;
          for (int64_t k = 0; k < cols; ++k) {
            sum += double{x[static_cast<size_t>(t * cols + k)]} *
                   double{w[static_cast<size_t>(n * cols + k)]};
          }
          ASSERT_NEAR(out[static_cast<size_t>(t * rows + n)], sum, 2e-5) << t << ", " << n;
        }
      }
    }
  }
}

TEST_P(OneDnnTest, RowsReadBackAsPacked) {
  const int64_t rows = 300, cols = 77;
  const auto w = random_values(rows * cols, 4);
  const auto weight = pack(w, rows, cols);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t n = 0; n < rows; ++n) {
    weight->read_row(n, row.data());
    for (int64_t k = 0; k < cols; ++k) {
      ASSERT_EQ(row[static_cast<size_t>(k)], w[static_cast<size_t>(n * cols + k)]);
    }
  }
}

TEST_P(OneDnnTest, AProductAllocatesNothingItself) {
  const int64_t rows = 600, cols = 80, most = 127;
  const auto weight = pack(random_values(rows * cols, 8), rows, cols);
  ASSERT_TRUE(onednn_->reserve(GetParam(), most, cols));
  const int64_t scratch = onednn_->scratch_bytes();
  const auto x = random_values(most * cols, 9);
  std::vector<float> out(static_cast<size_t>(most * rows));
  for (const int64_t count : {int64_t{1}, int64_t{5}, int64_t{64}, most}) {
    const auto product = [&] {
      weight->multiply(pool_, {x.data(), DType::kF32, {count, cols}}, {},
                       {out.data(), DType::kF32, {count, rows}});
    };
    EXPECT_EQ(allocations_of(product), 0) << count << " rows";
  }
  EXPECT_EQ(onednn_->scratch_bytes(), scratch);
}

TEST_P(OneDnnTest, WeightsOfOneShapeShareNothingButTheirShape) {
  const int64_t rows = 300, cols = 64;
  const auto first = pack(random_values(rows * cols, 10), rows, cols);
  const auto x = random_values(3 * cols, 11);
  const auto before = multiply(*first, x, 0, 3, {});
  // A taller and a wider one, and one of the same shape, come and go.
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{rows, cols}, {556, cols}, {rows, 4096}}) {
    const auto other = pack(random_values(n * k, 12), n, k);
    (void)multiply(*other, random_values(70 * k, 13), 0, 70, {});
    EXPECT_EQ(multiply(*first, x, 0, 3, {}), before) << n << ", " << k;
  }
  EXPECT_EQ(multiply(*first, x, 0, 3, {}), before);
}

TEST_P(OneDnnTest, TheProbeNamesAnUnexpectedImplementation) {
  const auto weight = pack(random_values(256 * 64, 5), 256, 64);
  EXPECT_NE(weight->probe(pool_, "another").find("oneDNN chose"), std::string::npos);
}

// Whatever the probe lets pass must hold at row counts it did not try. Where it lets nothing pass,
// as over the implementation that CPUs without AVX-512 get, it must have seen why.
TEST_P(OneDnnTest, WhatTheProbePassesIsBitEqualEverywhere) {
  int passed = 0;
  std::string refusals;
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{256, 256}, {256, 768}, {600, 64}}) {
    const auto weight = pack(random_values(rows * cols, 6), rows, cols);
    const std::string chosen = weight->probe(pool_, "");
    const std::string name = chosen.substr(13, chosen.find(" for ") - 13);
    const std::string refusal = weight->probe(pool_, name);
    if (!refusal.empty()) {
      refusals += name + ": " + refusal + "\n";
      continue;
    }
    ++passed;
    const auto x = random_values(130 * cols, 7);
    for (int64_t count = 2; count <= 130; count += 3) {
      const auto together = multiply(*weight, x, 0, count, {});
      for (const int64_t t : {int64_t{0}, count / 2, count - 1}) {
        const auto alone = multiply(*weight, x, t, 1, {});
        EXPECT_TRUE(std::equal(alone.begin(), alone.end(), together.begin() + t * rows))
            << name << ": row " << t << " of " << count;
      }
    }
  }
  if (passed > 0) return;
  EXPECT_NE(refusals.find("other bits"), std::string::npos) << refusals;
  GTEST_SKIP() << "oneDNN gives no product that serves here: " << refusals;
}

}  // namespace
}  // namespace coppice::ops::cpu
