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
  const int64_t tokens = batch.inputs.size(1);
  const auto weights = footprint_weights(batch.lengths, tokens, options_.window);
  const auto rates = keep_rate(pass.kept(), weights, options_.sinks);  // [B]
  auto total = torch::zeros({});
  std::array<std::vector<torch::Tensor>, kTierBins> above;
  parts_.keep.fill(std::nan(""));
  std::array<std::vector<double>, kTierBins> kept;
  for (int64_t b = 0; b < rates.size(0); ++b) {
    const double u = tiers[b].item<double>();
    const auto bin =
        static_cast<size_t>(std::min<int>(kTierBins - 1, static_cast<int>(u * kTierBins)));
    above[bin].push_back(rates[b] - keep_target(options_, u, progress));
    kept[bin].push_back(rates[b].item<double>());
  }
  for (size_t bin = 0; bin < above.size(); ++bin) {
    if (above[bin].empty()) continue;
    const auto mean = torch::stack(above[bin]).mean();
    double sum = 0;
    for (const double k : kept[bin]) sum += k;
    parts_.keep[bin] = sum / static_cast<double>(kept[bin].size());
    excess_[bin] += kNews * (mean.item<float>() - excess_[bin]);
    // The value of the running mean with the gradient of this step's.
    total = total + torch::relu(mean - mean.detach() + excess_[bin]);
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
