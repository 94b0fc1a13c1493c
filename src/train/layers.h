// What:    the parts of a Llama layer that are not matrix products, as transformers has them.
// Owns:    nothing.
// Threads: torch's own.
// Fails:   throws c10::Error on wrong shapes, as torch does.
#pragma once

#include <vector>

#include <torch/types.h>

namespace coppice::train {

// x [..., E], weight [E] -> x * rsqrt(mean(x^2) + eps) * weight.
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

// silu(gate) * up, all [..., F].
torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

struct RopeTable {
  torch::Tensor cos, sin;  // [T, D/2]
};
RopeTable rope_table(int64_t tokens, int64_t head_dim, double theta);
// By inverse frequencies [D/2]; the angle is rounded to f32, as transformers and the engine do.
RopeTable rope_table(int64_t tokens, const std::vector<float>& inv_freq);
// x [B, H, T, D], rotate-half form.
torch::Tensor rope(const torch::Tensor& x, const RopeTable& table);

// [T, T]: -infinity in the columns after the row, else 0.
torch::Tensor causal_mask(int64_t tokens);

}  // namespace coppice::train
