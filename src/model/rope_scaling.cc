#include "model/rope_scaling.h"

#include <cmath>
#include <numbers>

#include "base/check.h"

namespace coppice::model {
namespace {

// Llama 3.1: long waves are stretched by `factor`, short ones kept, those between blended. PyTorch
// divides a number by a tensor as reciprocal times number, and so does this.
float llama3_scaled(float frequency, const RopeScaling& scaling) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto low = static_cast<float>(scaling.low_freq_factor);
  const auto span = static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
  const double context = scaling.original_max_position_embeddings;
  const auto longest = static_cast<float>(context / scaling.low_freq_factor);
  const auto shortest = static_cast<float>(context / scaling.high_freq_factor);
  const float wave = (1.0f / frequency) * static_cast<float>(2.0 * std::numbers::pi);
  if (wave > longest) return frequency / factor;
  if (wave < shortest) return frequency;
  const float smooth = ((1.0f / wave) * static_cast<float>(context) - low) / span;
  return (1.0f - smooth) * frequency / factor + smooth * frequency;
}

}  // namespace

std::vector<float> rope_inverse_frequencies(double theta, int32_t head_dim,
                                            const RopeScaling& scaling) {
  std::vector<float> out(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < out.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    const auto power = static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
    const float frequency = 1.0f / power;
    switch (scaling.type) {
      case RopeType::kDefault:
        out[i] = frequency;
        break;
      case RopeType::kLinear:
        out[i] = frequency / static_cast<float>(scaling.factor);
        break;
      case RopeType::kLlama3:
        out[i] = llama3_scaled(frequency, scaling);
        break;
    }
  }
  return out;
}

void divide_frequencies(std::span<float> inverse_frequencies, std::span<const float> divisors) {
  CHECK(inverse_frequencies.size() == divisors.size());
  for (size_t i = 0; i < divisors.size(); ++i) inverse_frequencies[i] /= divisors[i];
}

}  // namespace coppice::model
