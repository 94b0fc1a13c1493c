#include "tensor/quantise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "tensor/quant_block.h"

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

int nearest(float value, int least, int most) {
  return static_cast<int>(
      std::clamp(std::nearbyint(value), static_cast<float>(least), static_cast<float>(most)));
}

// value = scale * code - minimum, both not negative; codes from 0 to `most`.
struct Affine {
  float scale = 0, minimum = 0;
  int most = 15;
  int code(float value) const {
    return scale == 0 ? 0 : nearest((value + minimum) / scale, 0, most);
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
  return {static_cast<float>(std::max(scale, 0.0)), static_cast<float>(minimum), affine.most};
}

// Starts from ranges a little narrower and wider than the group's and keeps the best fit.
Affine best_affine(const float* x, int most) {
  const float low = std::min(0.0f, *std::min_element(x, x + kGroup));
  const float high = std::max(low, *std::max_element(x, x + kGroup));
  if (high == low) return {0, -low, most};
  const auto codes = static_cast<float>(most);
  Affine best{(high - low) / codes, -low, most};
  double least = squared_error(x, best);
  for (int step = 0; step <= 20; ++step) {
    const float spread = codes - 1.0f + 0.1f * static_cast<float>(step);
    const Affine start{(high - low) / spread, -low, most};
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

// The codes of 256 values and the scales of their eight groups into a block's first fields.
template <class Block>
std::array<uint8_t, 256> fit_affine(const float* x, int most, Block& block) {
  std::array<Affine, 8> groups;
  float scale = 0, minimum = 0;
  for (size_t g = 0; g < 8; ++g) {
    groups[g] = best_affine(x + g * kGroup, most);
    scale = std::max(scale, groups[g].scale);
    minimum = std::max(minimum, groups[g].minimum);
  }
  block.scale = to_f16(scale / 63.0f);
  block.min_scale = to_f16(std::min(minimum / 63.0f, kMostScale));  // a fit may reach beyond values
  const float d = to_float(block.scale), dmin = to_float(block.min_scale);
  const auto share = [](float part, float unit) {
    return unit > 0 ? nearest(part / unit, 0, 63) : 0;
  };
  std::array<int, 8> scales{}, mins{};
  std::array<uint8_t, 256> codes;
  for (size_t g = 0; g < 8; ++g) {
    scales[g] = share(groups[g].scale, d);
    mins[g] = share(groups[g].minimum, dmin);
    const Affine stored{d * static_cast<float>(scales[g]), dmin * static_cast<float>(mins[g]),
                        most};
    for (size_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
      codes[i] = static_cast<uint8_t>(stored.code(x[i]));
    }
  }
  pack_scales(scales, mins, block.scales);
  return codes;
}

// The low four bits of runs of 64, as quant_block.cc's unpack_nibbles_by_64 reads them.
void pack_nibbles_by_64(const std::array<uint8_t, 256>& codes, uint8_t* nibbles) {
  for (size_t i = 0; i < codes.size(); ++i) {
    nibbles[i / 64 * 32 + i % 32] |= static_cast<uint8_t>((codes[i] & 15) << (i % 64 < 32 ? 0 : 4));
  }
}

void quantise_q4_k(const float* x, std::byte* out) {
  BlockQ4_K block{};
  pack_nibbles_by_64(fit_affine(x, 15, block), block.nibbles);
  put(block, out);
}

void quantise_q5_k(const float* x, std::byte* out) {
  BlockQ5_K block{};
  const auto codes = fit_affine(x, 31, block);
  pack_nibbles_by_64(codes, block.nibbles);
  for (size_t i = 0; i < codes.size(); ++i) {
    block.fifth_bits[i % 32] |= static_cast<uint8_t>(codes[i] >> 4 << i / 32);
  }
  put(block, out);
}

int q6_code(float value, float scale) { return scale == 0 ? 0 : nearest(value / scale, -32, 31); }

// Of 16 values, either sign: the value of largest magnitude near -32, which has no positive twin,
// or somewhat off it.
float best_q6_scale(const float* x) {
  float largest = 0;
  for (int i = 0; i < 16; ++i) {
    if (std::abs(x[i]) > std::abs(largest)) largest = x[i];
  }
  if (largest == 0) return 0;
  // The scale of least squares for the codes that another gives, and what of the values' squares
  // it explains.
  float best = 0;
  double most = -1;
  for (int step = -9; step <= 9; ++step) {
    const float start = -largest / (32.0f + 0.1f * static_cast<float>(step));
    double products = 0, squares = 0;
    for (int i = 0; i < 16; ++i) {
      const double code = q6_code(x[i], start);
      products += code * double{x[i]};
      squares += code * code;
    }
    if (squares > 0 && products * products / squares > most) {
      most = products * products / squares;
      best = static_cast<float>(products / squares);
    }
  }
  return best;
}

void quantise_q6_k(const float* x, std::byte* out) {
  std::array<float, 16> scales;
  float largest = 0;
  for (size_t g = 0; g < 16; ++g) {
    scales[g] = best_q6_scale(x + g * 16);
    if (std::abs(scales[g]) > std::abs(largest)) largest = scales[g];
  }
  BlockQ6_K block{};
  block.scale = to_f16(std::clamp(largest / -128.0f, -kMostScale, kMostScale));
  const float d = to_float(block.scale);
  for (size_t i = 0; i < 256; ++i) {
    const size_t g = i / 16, run = i / 128, quarter = i % 128 / 32, l = i % 32;
    block.scales[g] = static_cast<int8_t>(d == 0 ? 0 : nearest(scales[g] / d, -128, 127));
    const int code = q6_code(x[i], d * static_cast<float>(block.scales[g])) + 32;
    block.nibbles[run * 64 + quarter % 2 * 32 + l] |=
        static_cast<uint8_t>((code & 15) << (quarter < 2 ? 0 : 4));
    block.upper_bits[run * 32 + l] |= static_cast<uint8_t>(code >> 4 << 2 * quarter);
  }
  put(block, out);
}

// Largest code times largest scale inside a block, where values may have either sign.
float most_units(DType type) {
  switch (type) {
    case DType::kQ8_0:
      return 127;
    case DType::kQ4_0:
      return 8;
    case DType::kQ6_K:
      return 31 * 127;
    default:
      return 63;  // a minimum's
  }
}

// What quantises one block.
auto quantiser(DType type) -> void (*)(const float* x, std::byte* out) {
  switch (type) {
    case DType::kQ8_0:
      return quantise_q8_0;
    case DType::kQ4_0:
      return quantise_q4_0;
    case DType::kQ4_K:
      return quantise_q4_k;
    case DType::kQ5_K:
      return quantise_q5_k;
    default:
      CHECK(type == DType::kQ6_K);
      return quantise_q6_k;
  }
}

}  // namespace

void quantise(DType type, const float* x, int64_t count, std::byte* out) {
  CHECK(is_quantised(type) && count % dtype_block(type) == 0);
  const auto quantise_block = quantiser(type);
  std::array<float, 256> block;
  const int64_t size = dtype_block(type);
  const float most = kMostScale * most_units(type);
  for (int64_t b = 0; b < count / size; ++b, out += dtype_block_bytes(type)) {
    // A 16-bit scale cannot hold what is tiny, and its inverse would overflow.
    std::transform(x + b * size, x + (b + 1) * size, block.begin(), [&](float value) {
      const bool counts = std::isfinite(value) && std::abs(value) > 1e-30f;
      return counts ? std::clamp(value, -most, most) : 0.0f;
    });
    quantise_block(block.data(), out);
  }
}

}  // namespace coppice
