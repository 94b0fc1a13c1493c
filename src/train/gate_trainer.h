// What:    `coppice-train gate`: the loop that teaches a gate what a frozen base can forget.
// Owns:    the twins, the gate, the checkpoint beside the gate file.
// Threads: one caller; torch's own threads inside.
// Fails:   models the engine does not load (file, field), files, a loss that is not finite,
//          a checkpoint of another run; kCancelled when interrupted.
#pragma once

#include <string>

#include "coppice/error.h"
#include "train/adamw.h"
#include "train/gate_archive.h"
#include "train/gate_data.h"
#include "train/gate_net.h"
#include "train/gate_objective.h"
#include "train/gate_options.h"
#include "train/twin.h"

namespace coppice::train {

class GateTrainer {
 public:
  // A fresh run, or with options.resume the one whose checkpoint lies beside options.out.
  static Expected<GateTrainer> open(const GateOptions& options);

  // Until options.steps, then thresholds, the report and the gate file; prints progress.
  Status run();
  // One optimiser step; its loss.
  Expected<double> step();
  Status save();

  int64_t steps_done() const { return adam_.steps(); }
  const GateNet& net() const { return net_; }
  const Twin& student() const { return student_; }
  const GateData& data() const { return data_; }

 private:
  GateTrainer(const GateOptions& options, Twin base, GateData data, const GateHeader& header,
              std::string hash);

  Status start_from(const GateArchive& archive);
  torch::Tensor replay_step(double progress, uint64_t seed);
  torch::Tensor learned_step(double progress, uint64_t seed);
  std::vector<GateSample> draw_samples(uint64_t seed, bool copies) const;
  double learning_rate(int64_t step) const;
  double progress() const;
  std::filesystem::path checkpoint() const { return options_.out.string() + ".checkpoint"; }
  std::string recipe() const;
  NamedTensors state() const;
  Status restore();
  Status report(double loss, double seconds);
  Status log_line(double loss, double seconds_a_step) const;
  Status finish();

  GateOptions options_;
  GateData data_;
  Twin teacher_, student_;
  GateNet net_;
  GateObjective objective_;
  AdamW adam_;
  AdamW adapter_adam_;
  std::string base_hash_;
  int64_t tokens_ = 0;  // fed so far
  double grad_norm_ = 0;
  // Since the last report: sums of what the tiers kept, and of how many steps.
  std::array<double, kTierBins> kept_{};
  std::array<int, kTierBins> kept_steps_{};
};

}  // namespace coppice::train
