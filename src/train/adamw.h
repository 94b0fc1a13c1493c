// What:    AdamW (Loshchilov and Hutter) over named tensors, with a state that can be saved.
// Owns:    first and second moments, one f32 tensor each per parameter.
// Threads: torch's own.
// Fails:   never.
#pragma once

#include "train/tensor_file.h"

namespace coppice::train {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.01;  // matrices only
  double clip = 1.0;           // of the gradients' global norm
};

class AdamW {
 public:
  AdamW(const NamedTensors& parameters, const AdamWOptions& options);

  // Applies and clears the gradients; returns their norm before clipping.
  double step(double learning_rate);

  // Moments as "adam.m.NAME" and "adam.v.NAME": views of the live state.
  NamedTensors state() const;
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  NamedTensors parameters_;
  AdamWOptions options_;
  std::vector<torch::Tensor> m_, v_;
  int64_t steps_ = 0;
};

}  // namespace coppice::train
