// What:    thresholds of a trained gate's tiers, and the report of what they cost: the end of a
//          gate's training.
// Owns:    nothing.
// Threads: one caller; torch's own threads inside.
// Fails:   kCancelled when interrupted.
//
// A tier's share is that of pages (page_footprint) behind prompts of facts and text that are held
// out, averaged over what the gate was trained on. The report's `keep` is the same share in one
// case; `full` and `gated` are the shares of its questions answered exactly, without the gate and
// under it, all decisions hard (of texts: the shares of tokens predicted right).
#pragma once

#include <array>

#include "coppice/error.h"
#include "train/gate_data.h"
#include "train/gate_net.h"
#include "train/gate_options.h"
#include "train/twin.h"

namespace coppice::train {

// Of mild, normal and hard.
inline constexpr std::array<double, 3> kTierShares = {0.5, 0.25, 0.125};

// Fills the header's tiers and calibration; prints both as they are found.
Status calibrate(const Twin& twin, const GateNet& net, const GateData& data,
                 const GateOptions& options, GateHeader& header);

// Share of the sample's answers that are exact (dense: of its tokens that are right), and how many.
struct GateScore {
  int64_t right = 0, asked = 0;
  double rate() const {
    return asked > 0 ? static_cast<double>(right) / static_cast<double>(asked) : 0.0;
  }
};
// net null: ungated. keep, where given, gets the page footprint of the prompt.
GateScore grade_gate(const Twin& twin, const GateNet* net, double threshold,
                     const GateSample& sample, const GateOptions& options, double* keep);

}  // namespace coppice::train
