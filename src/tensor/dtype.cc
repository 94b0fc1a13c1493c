#include "tensor/dtype.h"

#include <array>
#include <cmath>

#include "base/check.h"

namespace coppice {
namespace {

struct TypeInfo {
  DType type;
  std::string_view name;
  int block;
  int bytes;
};
constexpr std::array<TypeInfo, 10> kTypes{{{DType::kF32, "f32", 1, 4},
                                           {DType::kF16, "f16", 1, 2},
                                           {DType::kBF16, "bf16", 1, 2},
                                           {DType::kI8, "i8", 1, 1},
                                           {DType::kI32, "i32", 1, 4},
                                           {DType::kQ8_0, "q8_0", 32, sizeof(BlockQ8_0)},
                                           {DType::kQ4_0, "q4_0", 32, sizeof(BlockQ4_0)},
                                           {DType::kQ4_K, "q4_k", 256, sizeof(BlockQ4_K)},
                                           {DType::kQ5_K, "q5_k", 256, sizeof(BlockQ5_K)},
                                           {DType::kQ6_K, "q6_k", 256, sizeof(BlockQ6_K)}}};

const TypeInfo& info(DType type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

int dtype_block(DType type) { return info(type).block; }
int dtype_block_bytes(DType type) { return info(type).bytes; }
std::string_view dtype_name(DType type) { return info(type).name; }

int64_t dtype_bytes(DType type, int64_t elements) {
  CHECK(elements % info(type).block == 0);
  return elements / info(type).block * info(type).bytes;
}

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const TypeInfo& type : kTypes) {
    if (type.name == name) return type.type;
  }
  return std::nullopt;
}

float to_float(f16 x) {
  const uint32_t sign = uint32_t{x.bits & 0x8000u} << 16;
  const uint32_t exponent = (x.bits >> 10) & 0x1fu;
  const uint32_t mantissa = x.bits & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);  // subnormal, exact
  return sign != 0 ? -magnitude : magnitude;
}

f16 to_f16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // >= 65520
  if (magnitude < 0x38800000u) {  // below the least normal: multiples of 2^-24, ties to even
    const float scaled = std::bit_cast<float>(magnitude) * 16777216.0f;
    return {static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(scaled)))};
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

}  // namespace coppice
