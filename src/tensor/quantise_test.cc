#include "tensor/quantise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tensor/quant_block.h"

namespace coppice {
namespace {

constexpr DType kTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

std::vector<float> dequantised(DType type, const std::vector<std::byte>& bytes) {
  std::vector<float> out;
  std::vector<float> values(static_cast<size_t>(dtype_block(type)));
  for (size_t at = 0; at < bytes.size(); at += static_cast<size_t>(dtype_block_bytes(type))) {
    dequantise(type, read_quant_block(type, bytes.data() + at), values.data());
    out.insert(out.end(), values.begin(), values.end());
  }
  return out;
}

std::vector<std::byte> quantised(DType type, const std::vector<float>& x) {
  std::vector<std::byte> out(
      static_cast<size_t>(dtype_bytes(type, static_cast<int64_t>(x.size()))));
  quantise(type, x.data(), static_cast<int64_t>(x.size()), out.data());
  return out;
}

double relative_error(const std::vector<float>& x, const std::vector<float>& y) {
  double error = 0, size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += std::pow(double{x[i]} - double{y[i]}, 2);
    size += std::pow(double{x[i]}, 2);
  }
  return std::sqrt(error / size);
}

std::vector<float> normal_values(size_t count) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(count);
  for (float& value : x) value = normal(random);
  return x;
}

TEST(Quantise, Q8_0AndQ4_0AreTheReferencesBytes) {
  for (const DType type : {DType::kQ8_0, DType::kQ4_0}) {
    const std::string name = type == DType::kQ8_0 ? "Q8_0" : "Q4_0";
    std::ifstream file(COPPICE_TEST_DATA "/quant/" + name + ".quantised.bin", std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const size_t count = 640, blocks = static_cast<size_t>(dtype_bytes(type, count));
    ASSERT_EQ(bytes.size(), count * sizeof(float) + blocks);
    std::vector<float> x(count);
    std::memcpy(x.data(), bytes.data(), count * sizeof(float));
    const auto got = quantised(type, x);
    EXPECT_EQ(std::memcmp(got.data(), bytes.data() + count * sizeof(float), blocks), 0) << name;
  }
}

TEST(Quantise, ErrorsAreThoseOfTheBits) {
  const auto x = normal_values(1 << 15);
  EXPECT_LT(relative_error(x, dequantised(DType::kQ8_0, quantised(DType::kQ8_0, x))), 0.007);
  EXPECT_LT(relative_error(x, dequantised(DType::kQ6_K, quantised(DType::kQ6_K, x))), 0.02);
  EXPECT_LT(relative_error(x, dequantised(DType::kQ5_K, quantised(DType::kQ5_K, x))), 0.041);
  const double q4_0 = relative_error(x, dequantised(DType::kQ4_0, quantised(DType::kQ4_0, x)));
  const double q4_k = relative_error(x, dequantised(DType::kQ4_K, quantised(DType::kQ4_K, x)));
  EXPECT_LT(q4_0, 0.10);
  EXPECT_LT(q4_k, 0.082);
  EXPECT_LT(q4_k, q4_0) << "minima and the search must be worth their bytes";
}

TEST(Quantise, EveryBlockStandsAlone) {
  for (const DType type : kTypes) {
    const auto size = static_cast<size_t>(dtype_block(type));
    std::vector<float> x(4 * size, 0.0f);                          // zeros
    std::fill_n(x.begin() + static_cast<long>(size), size, 2.0f);  // one value
    std::fill_n(x.begin() + static_cast<long>(2 * size), size, -3.0f);
    x[3 * size] = std::numeric_limits<float>::infinity();
    x[3 * size + 1] = std::numeric_limits<float>::quiet_NaN();
    x[3 * size + 2] = 1.0f;
    x[3] = 1e-42f;  // nothing, in a block of zeros
    const auto y = dequantised(type, quantised(type, x));
    for (size_t i = 0; i < size; ++i) {
      EXPECT_EQ(y[i], 0.0f);
      EXPECT_NEAR(y[size + i], 2.0f, 0.14f) << dtype_name(type);
      EXPECT_NEAR(y[2 * size + i], -3.0f, 0.02f) << dtype_name(type);
      EXPECT_TRUE(std::isfinite(y[3 * size + i]));
    }
    EXPECT_NEAR(y[3 * size + 2], 1.0f, 0.07f);
  }
}

// A scale is 16 bits wide: what is beyond its largest times the largest code becomes that.
TEST(Quantise, WhatIsTooLargeIsCutNotLost) {
  const float most = std::numeric_limits<float>::max();
  for (const DType type : kTypes) {
    const auto size = static_cast<size_t>(dtype_block(type));
    for (const float huge : {1e6f, 1e7f, 1e8f, 1e30f, most}) {
      std::vector<float> x(4 * size, 0.0f);
      for (size_t i = 0; i < size; ++i) {
        x[i] = i % 3 == 0 ? huge : 0;
        x[size + i] = i % 3 == 0 ? -huge : 0;
        x[2 * size + i] = i % 3 == 0 ? huge : i % 3 == 1 ? -huge : 0;
        x[3 * size + i] = i % 40 == 7 ? -huge : 1;  // 1 is lost beside it, but in groups without
      }
      const auto y = dequantised(type, quantised(type, x));
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_TRUE(std::isfinite(y[i])) << dtype_name(type) << " " << huge << " at " << i;
        if (std::abs(x[i]) == huge) {
          ASSERT_GT(y[i] / x[i], 0) << dtype_name(type) << " " << huge << " at " << i;
          ASSERT_GT(std::abs(y[i]), std::min(0.8f * huge, 450'000.0f));
          ASSERT_LT(std::abs(y[i]), 1.2f * huge);
        }
      }
    }
  }
}

}  // namespace
}  // namespace coppice
