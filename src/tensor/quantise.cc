#include "tensor/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"

namespace coppice {
namespace {

constexpr int kGroup = 32;
constexpr float kMostScale = 65504.0f;  // of 16 bits

template <class Block>
void put(const Block& block, std::byte* out) {
  std::memcpy(out, &block, sizeof(block));
}

void quantise_q8_0(const float* x, std::byte* out) {
  float most = 0;
  for (int i = 0; i < 32; ++i) most = std::max(most, std::abs(x[i]));
  const float scale = most / 127.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
  BlockQ8_0 block;
  block.scale = to_f16(scale);
  for (int i = 0; i < 32; ++i) block.quants[i] = static_cast<int8_t>(std::round(x[i] * inverse));
  put(block, out);
}

// The value of largest magnitude becomes -8, which has no positive twin.
void quantise_q4_0(const float* x, std::byte* out) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) {
    if (std::abs(x[i]) > std::abs(largest)) largest = x[i];
  }
  const float scale = largest / -8.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
  const auto code = [&](float value) {
    return static_cast<uint8_t>(std::min(15, static_cast<int>(value * inverse + 8.5f)));
  };
  BlockQ4_0 block;
  block.scale = to_f16(scale);
  for (int i = 0; i < 16; ++i) {
    block.nibbles[i] = static_cast<uint8_t>(code(x[i]) | code(x[i + 16]) << 4);
  }
  put(block, out);
}

// value = scale * code - minimum, both not negative.
struct Affine {
  float scale = 0, minimum = 0;
  int code(float value) const {
    if (scale == 0) return 0;
    return std::clamp(static_cast<int>(std::nearbyint((value + minimum) / scale)), 0, 15);
  }
};

double squared_error(const float* x, const Affine& affine) {
  double sum = 0;
  for (int i = 0; i < kGroup; ++i) {
    const double error =
        double{affine.scale} * affine.code(x[i]) - double{affine.minimum} - double{x[i]};
    sum += error * error;
  }
  return sum;
}

// The scale and minimum of least squares for the codes that `affine` gives.
Affine fitted(const float* x, const Affine& affine) {
  double codes = 0, squares = 0, values = 0, products = 0;
  for (int i = 0; i < kGroup; ++i) {
    const double code = affine.code(x[i]);
    codes += code;
    squares += code * code;
    values += double{x[i]};
    products += code * double{x[i]};
  }
  const double determinant = kGroup * squares - codes * codes;
  if (determinant <= 0) return affine;
  double scale = (kGroup * products - codes * values) / determinant;
  double minimum = (codes * products - squares * values) / determinant;
  if (minimum < 0) {  // a minimum can only lower
    minimum = 0;
    scale = squares > 0 ? products / squares : 0;
  }
  return {static_cast<float>(std::max(scale, 0.0)), static_cast<float>(minimum)};
}

// Starts from ranges a little narrower and wider than the group's and keeps the best fit.
Affine best_affine(const float* x) {
  const float low = std::min(0.0f, *std::min_element(x, x + kGroup));
  const float high = std::max(low, *std::max_element(x, x + kGroup));
  if (high == low) return {0, -low};
  Affine best{(high - low) / 15.0f, -low};
  double least = squared_error(x, best);
  for (int step = 0; step <= 20; ++step) {
    const Affine start{(high - low) / (14.0f + 0.1f * static_cast<float>(step)), -low};
    const Affine tried = fitted(x, start);
    const double error = squared_error(x, tried);
    if (error < least) {
      least = error;
      best = tried;
    }
  }
  return best;
}

// quant_block.cc's unpack_scales, the other way.
void pack_scales(const std::array<int, 8>& scales, const std::array<int, 8>& mins,
                 uint8_t* packed) {
  for (size_t g = 0; g < 4; ++g) {
    packed[g] = static_cast<uint8_t>(scales[g] | scales[g + 4] >> 4 << 6);
    packed[g + 4] = static_cast<uint8_t>(mins[g] | mins[g + 4] >> 4 << 6);
    packed[g + 8] = static_cast<uint8_t>((scales[g + 4] & 15) | (mins[g + 4] & 15) << 4);
  }
}

void quantise_q4_k(const float* x, std::byte* out) {
  std::array<Affine, 8> groups;
  float scale = 0, minimum = 0;
  for (size_t g = 0; g < 8; ++g) {
    groups[g] = best_affine(x + g * kGroup);
    scale = std::max(scale, groups[g].scale);
    minimum = std::max(minimum, groups[g].minimum);
  }
  BlockQ4_K block{};
  block.scale = to_f16(scale / 63.0f);
  block.min_scale = to_f16(std::min(minimum / 63.0f, kMostScale));  // a fit may reach beyond values
  const float d = to_float(block.scale), dmin = to_float(block.min_scale);
  std::array<int, 8> scales{}, mins{};
  const auto share = [](float part, float unit) {
    return unit > 0 ? std::clamp(static_cast<int>(std::nearbyint(part / unit)), 0, 63) : 0;
  };
  for (size_t g = 0; g < 8; ++g) {
    scales[g] = share(groups[g].scale, d);
    mins[g] = share(groups[g].minimum, dmin);
    const Affine stored{d * static_cast<float>(scales[g]), dmin * static_cast<float>(mins[g])};
    for (size_t i = 0; i < kGroup; ++i) {
      const int code = stored.code(x[g * kGroup + i]);
      block.nibbles[g / 2 * 32 + i] |= static_cast<uint8_t>(code << (g % 2 == 0 ? 0 : 4));
    }
  }
  pack_scales(scales, mins, block.scales);
  put(block, out);
}

// The largest value whose scale is finite, whatever else is in its block.
float largest_value(DType type) {
  return kMostScale * (type == DType::kQ8_0 ? 127 : type == DType::kQ4_0 ? 8 : 63);
}

}  // namespace

bool can_quantise(DType type) {
  return type == DType::kQ8_0 || type == DType::kQ4_0 || type == DType::kQ4_K;
}

void quantise(DType type, const float* x, int64_t count, std::byte* out) {
  CHECK(can_quantise(type) && count % dtype_block(type) == 0);
  std::array<float, 256> block;
  const int64_t size = dtype_block(type);
  const float most = largest_value(type);
  for (int64_t b = 0; b < count / size; ++b, out += dtype_block_bytes(type)) {
    // A 16-bit scale cannot hold what is tiny, and its inverse would overflow.
    std::transform(x + b * size, x + (b + 1) * size, block.begin(), [&](float value) {
      const bool counts = std::isfinite(value) && std::abs(value) > 1e-30f;
      return counts ? std::clamp(value, -most, most) : 0.0f;
    });
    if (type == DType::kQ8_0) {
      quantise_q8_0(block.data(), out);
    } else if (type == DType::kQ4_0) {
      quantise_q4_0(block.data(), out);
    } else {
      quantise_q4_k(block.data(), out);
    }
  }
}

}  // namespace coppice
