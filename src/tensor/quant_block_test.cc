#include "tensor/quant_block.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace coppice {
namespace {

constexpr DType kTypes[] = {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

TEST(QuantBlock, ValuesAreTheReferencesToTheLastBit) {
  for (const DType type : kTypes) {
    std::string name(dtype_name(type));
    for (char& c : name) c = static_cast<char>(std::toupper(c));
    std::ifstream file(COPPICE_TEST_DATA "/quant/" + name + ".bin", std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    const auto block_bytes = static_cast<size_t>(dtype_block_bytes(type));
    const auto values = static_cast<size_t>(dtype_block(type));
    const size_t blocks = 12;
    ASSERT_EQ(bytes.size(), blocks * (block_bytes + values * sizeof(float))) << name;
    for (size_t b = 0; b < blocks; ++b) {
      const auto* at = reinterpret_cast<const std::byte*>(bytes.data()) + b * block_bytes;
      std::vector<float> got(values), want(values);
      std::memcpy(want.data(), bytes.data() + blocks * block_bytes + b * values * sizeof(float),
                  values * sizeof(float));
      dequantise(type, read_quant_block(type, at), got.data());
      for (size_t i = 0; i < values; ++i) {
        ASSERT_EQ(got[i], want[i]) << name << " block " << b << " value " << i;
      }
    }
  }
}

TEST(QuantBlock, OnlyBlocksAreQuantised) {
  for (const DType type : kTypes) EXPECT_TRUE(is_quantised(type));
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI32}) {
    EXPECT_FALSE(is_quantised(type));
  }
}

}  // namespace
}  // namespace coppice
