// Products with block-quantised weights against the arithmetic of quant_kernels.h written plainly:
// equal to the last bit on every instruction set, at every row count.
#include "ops/cpu/quant_weight.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "ops/weight_source.h"
#include "tensor/quant_block.h"

namespace coppice::ops::cpu {
namespace {

struct Setup {
  DType type;
  std::string isa;
  int threads;
};

constexpr const char* kInstructionSets[] = {"avx2", "avx512"};

std::vector<Setup> all_setups() {
  std::vector<Setup> setups;
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    for (const std::string isa : kInstructionSets) {
      if (!choose_isa(isa)) continue;
      for (const int threads : {1, 2}) setups.push_back({type, isa, threads});
    }
  }
  return setups;
}

std::string setup_name(const testing::TestParamInfo<Setup>& info) {
  return std::string(dtype_name(info.param.type)) + "_" + info.param.isa + "_" +
         std::to_string(info.param.threads);
}

// Every byte of a block is valid but its f16 scales, which get ordinary values.
std::vector<std::byte> random_blocks(DType type, int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> scale(-0.02f, 0.02f);
  std::vector<std::byte> bytes(static_cast<size_t>(count * dtype_block_bytes(type)));
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255);
  for (int64_t b = 0; b < count; ++b) {
    std::byte* block = bytes.data() + b * dtype_block_bytes(type);
    const auto put = [&](size_t at) {
      const f16 half = to_f16(scale(random));
      std::memcpy(block + at, &half, sizeof(half));
    };
    put(type == DType::kQ6_K ? offsetof(BlockQ6_K, scale) : 0);
    if (quant_format(type).mins) put(offsetof(BlockQ4_K, min_scale));
  }
  return bytes;
}

std::vector<float> random_rows(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

// The arithmetic of quant_kernels.h for one row of x and one of w, both K long.
float plain_product(DType type, const std::byte* w, const float* x, int64_t depth) {
  const QuantFormat format = quant_format(type);
  float acc = 0;
  for (int64_t b = 0; b < depth / format.block; ++b, x += format.block) {
    const QuantBlock block = read_quant_block(type, w + b * dtype_block_bytes(type));
    float most = 0;
    for (int i = 0; i < format.block; ++i) most = std::max(most, std::abs(x[i]));
    const float inverse = most == 0 ? 0 : 127.0f / most, scale = most / 127.0f;
    int32_t sum = 0, least = 0;
    for (int i = 0; i < format.block; ++i) {
      const auto g = static_cast<size_t>(i / format.group);
      const auto a = static_cast<int32_t>(std::nearbyint(x[i] * inverse));
      sum += block.scales[g] * a * (block.codes[static_cast<size_t>(i)] - format.offset);
      if (format.mins) least += block.mins[g] * a;
    }
    acc = std::fma(static_cast<float>(sum), block.scale * scale, acc);
    if (format.mins) acc = std::fma(static_cast<float>(least), -(block.min_scale * scale), acc);
  }
  return acc;
}

class QuantWeightTest : public testing::TestWithParam<Setup> {
 protected:
  QuantWeightTest() : pool_(GetParam().threads) {}
  DType type() const { return GetParam().type; }
  int64_t block() const { return dtype_block(type()); }

  std::unique_ptr<QuantWeight> pack(const std::vector<std::byte>& w, int64_t rows, int64_t cols) {
    return std::move(*QuantWeight::pack(pool_, quant_kernels(*choose_isa(GetParam().isa)), scratch_,
                                        {w.data(), type(), {rows, cols}}));
  }
  std::vector<float> multiply(const QuantWeight& w, const std::vector<float>& x,
                              const std::vector<float>& bias = {}) {
    const int64_t rows = static_cast<int64_t>(x.size()) / w.cols();
    std::vector<float> out(static_cast<size_t>(rows * w.rows()), NAN);
    w.multiply(pool_, {x.data(), DType::kF32, {rows, w.cols()}},
               bias.empty() ? TensorView() : TensorView(bias.data(), DType::kF32, {w.rows()}),
               {out.data(), DType::kF32, {rows, w.rows()}});
    return out;
  }

  ThreadPool pool_;
  QuantScratch scratch_;
};
INSTANTIATE_TEST_SUITE_P(All, QuantWeightTest, testing::ValuesIn(all_setups()), setup_name);

TEST(QuantKernels, EveryInstructionSetRan) {
  std::string refusals;
  for (const char* isa : kInstructionSets) {
    const auto chosen = choose_isa(isa);
    if (!chosen) refusals += std::string(isa) + " did not: " + chosen.error().message + "; ";
  }
  if (!refusals.empty()) GTEST_SKIP() << refusals;
}

TEST_P(QuantWeightTest, IsThePlainArithmeticToTheLastBit) {
  const int64_t cols = 512;
  for (const int64_t rows : {1, 15, 16, 17, 33, 100}) {
    const auto w = random_blocks(type(), rows * cols / block(), 1);
    const auto weight = pack(w, rows, cols);
    const auto bias = random_rows(rows, 2);
    for (const int64_t count : {1, 2, 3, 4, 5, 7, 8, 9, 33}) {
      const auto x = random_rows(count * cols, 3);
      const bool biased = count % 2 == 0;
      const auto out = multiply(*weight, x, biased ? bias : std::vector<float>{});
      for (int64_t t = 0; t < count; ++t) {
        for (int64_t n = 0; n < rows; ++n) {
          const std::byte* row = w.data() + dtype_bytes(type(), n * cols);
          float want = plain_product(type(), row, x.data() + t * cols, cols);
          if (biased) want += bias[static_cast<size_t>(n)];
          ASSERT_EQ(out[static_cast<size_t>(t * rows + n)], want)
              << rows << " columns, row " << t << " of " << count << ", column " << n;
        }
      }
    }
  }
}

// Depths of less than a slice, of several and of one and a part; rows of every tile, few and many,
// and more than are multiplied together, which at the deepest are 24.
TEST_P(QuantWeightTest, EverySliceAndEveryBlockOfRowsIsThePlainArithmetic) {
  const int64_t rows = 33;
  for (const int64_t cols : {block(), 3 * block(), 512 + block(), 2048 - block(), 8192 + block()}) {
    const auto w = random_blocks(type(), rows * cols / block(), 11);
    const auto weight = pack(w, rows, cols);
    const auto x = random_rows(130 * cols, 12);
    std::vector<float> want;
    for (int64_t t = 0; t < 130; ++t) {
      for (int64_t n = 0; n < rows; ++n) {
        want.push_back(plain_product(type(), w.data() + dtype_bytes(type(), n * cols),
                                     x.data() + t * cols, cols));
      }
    }
    for (const int64_t count : {1, 3, 11, 12, 14, 27, 97, 130}) {
      const auto out = multiply(*weight, {x.begin(), x.begin() + static_cast<long>(count * cols)});
      for (size_t i = 0; i < out.size(); ++i) {
        ASSERT_EQ(out[i], want[i])
            << cols << " deep, row " << i / rows << " of " << count << ", column " << i % rows;
      }
    }
  }
}

// More rows than are multiplied together, and the ends of every sum's range: the largest codes and
// scales times the largest activations of one sign.
TEST_P(QuantWeightTest, NoSumOverflows) {
  const int64_t cols = 4096, rows = 16, count = 60;
  std::vector<std::byte> w(static_cast<size_t>(dtype_bytes(type(), rows * cols)), std::byte{0xff});
  if (type() == DType::kQ8_0) std::fill(w.begin(), w.end(), std::byte{0x80});  // -128
  for (int64_t b = 0; b < rows * cols / block(); ++b) {
    std::byte* at = w.data() + b * dtype_block_bytes(type());
    const f16 one = to_f16(1.0f);
    std::memcpy(at + (type() == DType::kQ6_K ? offsetof(BlockQ6_K, scale) : 0), &one, sizeof(one));
    if (quant_format(type()).mins) {
      std::memcpy(at + offsetof(BlockQ4_K, min_scale), &one, sizeof(one));
    }
    if (type() == DType::kQ6_K) {
      std::memset(at + offsetof(BlockQ6_K, scales), b % 2 == 0 ? 0x80 : 0x7f, 16);
    }
  }
  const auto weight = pack(w, rows, cols);
  std::vector<float> x(static_cast<size_t>(count * cols));
  for (size_t i = 0; i < x.size(); ++i)
    x[i] = i / static_cast<size_t>(cols) % 2 == 0 ? 3.0f : -3.0f;
  const auto out = multiply(*weight, x);
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t n = 0; n < rows; ++n) {
      const std::byte* row = w.data() + dtype_bytes(type(), n * cols);
      ASSERT_EQ(out[static_cast<size_t>(t * rows + n)],
                plain_product(type(), row, x.data() + t * cols, cols));
    }
  }
}

TEST_P(QuantWeightTest, IsNearTheDequantisedProduct) {
  const int64_t cols = 1024, rows = 64, count = 8;
  const auto w = random_blocks(type(), rows * cols / block(), 4);
  const auto x = random_rows(count * cols, 5);
  const auto out = multiply(*pack(w, rows, cols), x);
  std::vector<float> row(static_cast<size_t>(cols));
  double error = 0, size = 0;
  for (int64_t n = 0; n < rows; ++n) {
    widen_row({w.data(), type(), {rows, cols}}, n, row.data());
    for (int64_t t = 0; t < count; ++t) {
      double want = 0;
      for (int64_t k = 0; k < cols; ++k) {
        want += double{row[static_cast<size_t>(k)]} * double{x[static_cast<size_t>(t * cols + k)]};
      }
      error += std::pow(want - double{out[static_cast<size_t>(t * rows + n)]}, 2);
      size += want * want;
    }
  }
  EXPECT_LT(std::sqrt(error / size), 0.015) << "8-bit activations cost about 0.6 %";
}

TEST_P(QuantWeightTest, RowsReadBackAndBytesAreTheFiles) {
  const int64_t cols = 512, rows = 64;  // whole panels of the widest
  const auto w = random_blocks(type(), rows * cols / block(), 6);
  const auto weight = pack(w, rows, cols);
  EXPECT_LE(static_cast<double>(weight->bytes()), 1.04 * static_cast<double>(w.size()));
  std::vector<float> got(static_cast<size_t>(cols)), want = got;
  for (int64_t n = 0; n < rows; ++n) {
    weight->read_row(n, got.data());
    widen_row({w.data(), type(), {rows, cols}}, n, want.data());
    ASSERT_EQ(got, want) << n;
  }
}

TEST_P(QuantWeightTest, WhatIsNotFiniteStaysInItsRow) {
  const int64_t cols = 512, rows = 20;
  const auto weight = pack(random_blocks(type(), rows * cols / block(), 7), rows, cols);
  for (const float fault :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    auto x = random_rows(3 * cols, 8);
    const auto before = multiply(*weight, x);
    x[static_cast<size_t>(cols + 300)] = fault;
    const auto after = multiply(*weight, x);
    for (int64_t n = 0; n < rows; ++n) {
      EXPECT_EQ(after[static_cast<size_t>(n)], before[static_cast<size_t>(n)]);
      EXPECT_TRUE(std::isnan(after[static_cast<size_t>(rows + n)]));
      EXPECT_EQ(after[static_cast<size_t>(2 * rows + n)],
                before[static_cast<size_t>(2 * rows + n)]);
    }
  }
  for (const float value : multiply(*weight, std::vector<float>(static_cast<size_t>(cols), 0.0f))) {
    EXPECT_EQ(value, 0.0f);
  }
}

}  // namespace
}  // namespace coppice::ops::cpu
