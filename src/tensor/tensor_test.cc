#include "tensor/tensor.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace coppice {
namespace {

TEST(DType, EveryF16SurvivesTheRoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const f16 half{static_cast<uint16_t>(bits)};
    const float wide = to_float(half);
    if (std::isnan(wide)) {
      EXPECT_TRUE(std::isnan(to_float(to_f16(wide))));
    } else {
      EXPECT_EQ(to_f16(wide).bits, half.bits);
    }
  }
}

// The neighbours of every midpoint between two halves round to the right side, ties to even.
TEST(DType, F16RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const float low = to_float(f16{static_cast<uint16_t>(bits)});
    const float high = to_float(f16{static_cast<uint16_t>(bits + 1)});
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(to_f16(middle).bits, (bits & 1u) == 0 ? bits : bits + 1);
    EXPECT_EQ(to_f16(std::nextafter(middle, 0.0f)).bits, bits);
    EXPECT_EQ(to_f16(std::nextafter(middle, 1e9f)).bits, bits + 1);
  }
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7bff);
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);
}

TEST(DType, BF16RoundsToNearestEven) {
  EXPECT_EQ(to_bf16(1.0f).bits, 0x3f80);
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // tie, even below
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);  // tie, even above
  EXPECT_EQ(to_bf16(std::bit_cast<float>(0x3f808001u)).bits, 0x3f81);
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_TRUE(std::isnan(to_float(to_bf16(std::bit_cast<float>(0x7f800001u)))));
  EXPECT_TRUE(std::isinf(to_float(to_bf16(std::numeric_limits<float>::max()))));
}

TEST(DType, BlocksAndNames) {
  EXPECT_EQ(dtype_bytes(DType::kQ8_0, 64), 68);
  for (const DType type :
       {DType::kF32, DType::kF16, DType::kBF16, DType::kI8, DType::kI32, DType::kQ8_0}) {
    EXPECT_EQ(dtype_from_name(dtype_name(type)), type);
  }
  EXPECT_EQ(dtype_from_name("f64"), std::nullopt);
}

TEST(Tensor, ViewsOfABuffer) {
  auto buffer = Buffer::allocate(2 * 3 * 4);
  ASSERT_TRUE(buffer);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
  const TensorView view = buffer->view(DType::kF32, {2, 3});
  EXPECT_EQ(view.f32()[5], 0.0f);
  view.f32()[3] = 7;
  EXPECT_EQ(view.rows(1, 2).f32()[0], 7.0f);
  EXPECT_EQ(view.rows(1, 2).shape(), (Shape{1, 3}));
  EXPECT_EQ(view.reshaped({6}).shape().text(), "[6]");
  EXPECT_EQ(view.bytes(), 24);
}

TEST(TensorDeathTest, WrongTypeAndWrongRowsAreBugs) {
  auto buffer = Buffer::allocate(24);
  ASSERT_TRUE(buffer);
  const TensorView view = buffer->view(DType::kF32, {2, 3});
  EXPECT_DEATH((void)view.as_bf16(), "CHECK");
  EXPECT_DEATH((void)view.rows(1, 3), "CHECK");
}

}  // namespace
}  // namespace coppice
