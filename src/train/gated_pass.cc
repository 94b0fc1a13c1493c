#include "train/gated_pass.h"

namespace coppice::train {

torch::Tensor UngatedPass::attend(const AttentionInputs& in) {
  return masked_attention(in.q, in.k, in.v, {}, {});
}

GatedPass::GatedPass(const GateNet& net, const GateMask& mask, const torch::Tensor& prompts,
                     const torch::Tensor& shifts)
    : net_(net), mask_(mask), prompts_(prompts), shifts_(shifts.view({-1, 1, 1})) {}

torch::Tensor GatedPass::attend(const AttentionInputs& in) {
  const auto z = net_.logits(in.layer, in.u, prompts_);  // [B, Hkv, T]
  auto shifted = z + shifts_;
  if (mask_.noise > 0) {
    // A logistic variable is the logit of a uniform one.
    const auto uniform = torch::rand(z.sizes(), mask_.generator).clamp(1e-6, 1 - 1e-6);
    shifted = shifted + mask_.noise * torch::logit(uniform);
  }
  const auto p = torch::sigmoid(shifted);
  const bool soft = mask_.soft_floor > 0;
  const auto kept = soft ? p : straight_through(p, shifted.detach().ge(0).to(torch::kFloat32));
  logits_.push_back(z);
  probabilities_.push_back(p);
  kept_.push_back(kept);
  const auto coefficient = soft ? mask_.soft_floor + (1 - mask_.soft_floor) * p : kept;
  return masked_attention(in.q, in.k, in.v, coefficient, mask_.visibility);
}

}  // namespace coppice::train
