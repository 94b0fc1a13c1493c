// What:    one step's loss of a gate that is learned by what answers lose under it.
// Owns:    running means of how far the tiers are above their targets.
// Threads: one caller; torch's own threads inside.
// Fails:   as torch does.
#pragma once

#include <array>
#include <cstdint>

#include <torch/types.h>

#include "train/gate_batch.h"
#include "train/gate_options.h"
#include "train/gated_pass.h"
#include "train/twin.h"

namespace coppice::train {

inline constexpr int kTierBins = 3;  // mild, normal, hard: thirds of u

// What a step's loss was made of.
struct GateLossParts {
  double answers = 0, kd = 0, hinge = 0, polarised = 0;
  std::array<double, kTierBins> keep{};  // NaN: no sequence of the tier in this step
};

// What of the run is behind, in [0, 1], sets targets and noise.
double keep_target(const GateOptions& options, double u, double progress);
double noise_scale(const GateOptions& options, double progress);

class GateObjective {
 public:
  explicit GateObjective(const GateOptions& options) : options_(options) {}

  // teacher: the ungated base; student: the twin under the gate (the same, or with adapters). seed:
  // of tiers and noise.
  torch::Tensor loss(const Twin& teacher, const Twin& student, const GateNet& net,
                     const GateBatch& batch, double progress, uint64_t seed);
  const GateLossParts& parts() const { return parts_; }

  // The running means, for a checkpoint.
  const std::array<float, kTierBins>& excess() const { return excess_; }
  void set_excess(const std::array<float, kTierBins>& excess) { excess_ = excess; }

 private:
  torch::Tensor hinge(const GatedPass& pass, const GateBatch& batch, const torch::Tensor& tiers,
                      double progress);

  GateOptions options_;
  GateLossParts parts_;
  std::array<float, kTierBins> excess_{};  // as a checkpoint has them
};

}  // namespace coppice::train
