// What:    the hash that names the base model of a gate, by what its network computes with.
// Owns:    plain values.
// Threads: one.
// Fails:   never.
//
// It covers the architecture, the sizes, rms_norm_eps and rope_theta, whether q and k are normed;
// and of every tensor that the network uses its name, its shape and these of its values: all of a
// vector (norms, biases), kSampledRows rows of a matrix, spread evenly from the first to the last.
// Values count as the f32 numbers that they are, so one model has one hash in f32, or in bf16 where
// that holds its numbers, and in directories and GGUF files alike; quantised it is another model.
// Scaled positions (rope_scaling) are not covered: files round them differently.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "model/config.h"

namespace coppice::model {

class BaseHash {
 public:
  static constexpr int64_t kSampledRows = 16;

  explicit BaseHash(const ModelConfig& config);
  // Whether the network uses the tensor `name` of a checkpoint.
  bool covers(std::string_view name) const;
  // Tensors that it covers in ascending order of their Hugging Face names, each as a matrix
  // [rows, cols]; a vector is one row. read: row `row` to out [cols].
  using ReadRow = std::function<void(int64_t row, float* out)>;
  void add(std::string_view name, int64_t rows, int64_t cols, const ReadRow& read);
  std::string hex() const;  // 16 digits

 private:
  void mix(uint64_t bits);
  void mix(std::string_view text);

  bool tied_;
  uint64_t state_;
  std::vector<float> row_;
};

}  // namespace coppice::model
