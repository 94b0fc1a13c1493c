// What:    the inverse frequencies that rotary positions use, for every scaling type that is read.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   never; the numbers are checked by whoever read them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace coppice::model {

enum class RopeType { kDefault, kLinear, kLlama3 };

struct RopeScaling {
  RopeType type = RopeType::kDefault;
  double factor = 1.0;
  double low_freq_factor = 1.0;                  // llama3
  double high_freq_factor = 4.0;                 // llama3; more than low_freq_factor
  int32_t original_max_position_embeddings = 0;  // llama3; at least 1
};

// [head_dim / 2] of 1 / theta^(2i / head_dim), scaled. Every step is rounded to float as PyTorch
// rounds it, because position times this number is an angle: one unit in the last place here is
// 1e-3 radians at position 16384.
std::vector<float> rope_inverse_frequencies(double theta, int32_t head_dim,
                                            const RopeScaling& scaling);

// GGUF's form of llama3 scaling: one stored divisor per frequency, [head_dim / 2] of both.
void divide_frequencies(std::span<float> inverse_frequencies, std::span<const float> divisors);

}  // namespace coppice::model
