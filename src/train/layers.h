// What:    the parts of a Llama layer that are not matrix products, as transformers has them.
// Owns:    nothing.
// Threads: torch's own.
// Fails:   throws c10::Error on wrong shapes, as torch does.
#pragma once

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
// x [B, H, T, D], rotate-half form.
torch::Tensor rope(const torch::Tensor& x, const RopeTable& table);

// scores [N, G, T, T] -> softmax over the last axis of scale * scores, columns after the row
// masked.
torch::Tensor causal_softmax(const torch::Tensor& scores, double scale);

}  // namespace coppice::train
