#include "train/layers.h"

#include <cmath>

namespace coppice::train {

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
  return x * torch::rsqrt(x.pow(2).mean(-1, true) + eps) * weight;
}

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  return torch::silu(gate) * up;
}

RopeTable rope_table(int64_t tokens, int64_t head_dim, double theta) {
  const int64_t half = head_dim / 2;
  const auto freq =
      torch::pow(theta, -torch::arange(half, torch::kFloat64) / static_cast<double>(half));
  const auto angle = torch::arange(tokens, torch::kFloat64).unsqueeze(1) * freq.unsqueeze(0);
  return {angle.cos().to(torch::kFloat32), angle.sin().to(torch::kFloat32)};
}

RopeTable rope_table(int64_t tokens, const std::vector<float>& inv_freq) {
  const auto position = torch::arange(tokens, torch::kFloat32).unsqueeze(1);
  const auto angle = (position * torch::tensor(inv_freq).unsqueeze(0)).to(torch::kFloat64);
  return {angle.cos().to(torch::kFloat32), angle.sin().to(torch::kFloat32)};
}

torch::Tensor rope(const torch::Tensor& x, const RopeTable& table) {
  const auto halves = x.chunk(2, -1);
  return torch::cat({halves[0] * table.cos - halves[1] * table.sin,
                     halves[1] * table.cos + halves[0] * table.sin},
                    -1);
}

torch::Tensor causal_mask(int64_t tokens) {
  return torch::full({tokens, tokens}, -INFINITY, torch::kFloat32).triu(1);
}

}  // namespace coppice::train
