#include "train/gate_objective.h"

#include <algorithm>
#include <cmath>

#include "train/gate_loss.h"

namespace coppice::train {
namespace {

constexpr float kNews = 0.1f;  // a step's share of the running means

torch::Tensor answer_logits(const Twin& twin, const GateBatch& batch, AttentionHook& hook) {
  const auto hidden = twin.hidden(batch.inputs, &hook).flatten(0, 1);
  return twin.logits(hidden.index_select(0, batch.rows));
}

}  // namespace

double keep_target(const GateOptions& options, double u, double progress) {
  const double last = options.keep_most * std::pow(options.keep_least / options.keep_most, u);
  const double part = options.ramp > 0 ? std::min(1.0, progress / options.ramp) : 1.0;
  return 1 + (last - 1) * part;
}

double noise_scale(const GateOptions& options, double progress) {
  return options.noise * std::clamp((0.9 - progress) / 0.4, 0.0, 1.0);
}

// One-sided and global: a tier pays where the mean over all layers, heads, tokens and the steps
// before lies above its target; what layers, heads and samples take of it is theirs to settle.
torch::Tensor GateObjective::hinge(const GatedPass& pass, const GateBatch& batch,
                                   const torch::Tensor& tiers, double progress) {
  const auto weights = footprint_weights(batch.lengths, batch.inputs.size(1), options_.window);
  const auto rates = keep_rate(pass.kept(), weights, options_.sinks);  // [B]
  auto targets = torch::empty_like(tiers);
  for (int64_t b = 0; b < tiers.size(0); ++b) {
    targets[b] = keep_target(options_, tiers[b].item<double>(), progress);
  }
  const auto bins = (tiers * kTierBins).floor().clamp_max(kTierBins - 1);
  auto total = torch::zeros({});
  for (int bin = 0; bin < kTierBins; ++bin) {
    const auto at = static_cast<size_t>(bin);
    const auto members = bins.eq(bin);
    parts_.keep[at] = std::nan("");
    if (!members.any().item<bool>()) continue;
    parts_.keep[at] = rates.masked_select(members).mean().item<double>();
    const auto mean = (rates - targets).masked_select(members).mean();
    excess_[at] += kNews * (mean.item<float>() - excess_[at]);
    // The value of the running mean with the gradient of this step's.
    total = total + torch::relu(mean - mean.detach() + excess_[at]);
  }
  return total;
}

torch::Tensor GateObjective::loss(const Twin& teacher, const Twin& student, const GateNet& net,
                                  const GateBatch& batch, double progress, uint64_t seed) {
  torch::Tensor wanted;
  if (options_.kd > 0) {
    torch::NoGradGuard no_grad;
    UngatedPass ungated;
    wanted = answer_logits(teacher, batch, ungated);
  }
  GateMask mask;
  mask.visibility = {options_.window, options_.sinks};
  mask.soft_floor = options_.soft ? options_.soft_floor : 0;
  mask.noise = noise_scale(options_, progress);
  mask.generator = at::detail::createCPUGenerator(seed);
  const auto tiers = torch::rand({batch.inputs.size(0)}, mask.generator);
  GatedPass pass(net, mask, batch.prompts, options_.shift * (1 - 2 * tiers));
  const auto logits = answer_logits(student, batch, pass);
  const auto answers = answer_loss(logits, wanted, batch);
  const auto above = hinge(pass, batch, tiers, progress);
  const auto polarised = polarisation(pass.probabilities(), batch.lengths);
  auto loss = answers + options_.alpha * above + options_.gamma * polarised;
  parts_.answers = answers.item<double>();
  parts_.hinge = above.item<double>();
  parts_.polarised = polarised.item<double>();
  if (options_.kd > 0) {
    const auto kd = distillation(wanted, logits);
    parts_.kd = kd.item<double>();
    loss = loss + options_.kd * kd;
  }
  return loss;
}

}  // namespace coppice::train
