#include "tensor/narrow.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "tensor/quantise.h"
#include "tensor/widen.h"

namespace coppice {
namespace {

std::vector<float> there_and_back(DType type, const std::vector<float>& x) {
  const auto count = static_cast<int64_t>(x.size());
  std::vector<std::byte> stored(static_cast<size_t>(dtype_bytes(type, count)));
  narrow_row(type, x.data(), count, stored.data());
  std::vector<float> back(x.size());
  widen_row({stored.data(), type, {1, count}}, 0, back.data());
  return back;
}

TEST(Narrow, KeepsWhatTheTypeHolds) {
  std::vector<float> x(256);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i) - 127.0f;
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    EXPECT_EQ(there_and_back(type, x), x) << dtype_name(type);
  }
  for (const DType type : {DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    std::vector<std::byte> want(static_cast<size_t>(dtype_bytes(type, 256))), got = want;
    quantise(type, x.data(), 256, want.data());
    narrow_row(type, x.data(), 256, got.data());
    EXPECT_EQ(got, want) << dtype_name(type);
  }
}

TEST(Narrow, SaysWhichTypesItKnows) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                           DType::kQ4_K, DType::kQ5_K, DType::kQ6_K}) {
    EXPECT_TRUE(can_narrow(type)) << dtype_name(type);
  }
  for (const DType type : {DType::kI8, DType::kI32}) {
    EXPECT_FALSE(can_narrow(type)) << dtype_name(type);
  }
}

}  // namespace
}  // namespace coppice
