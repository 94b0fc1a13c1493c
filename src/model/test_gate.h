// What:    (tests) gate files with random weights for a checkpoint.
// Owns:    nothing.
// Threads: any.
// Fails:   CHECKs.
#pragma once

#include <cmath>
#include <random>
#include <span>
#include <string>

#include "model/gate_file.h"

namespace coppice::model::testing {

// A gate of `kind` whose logits are near a normal distribution: thresholds at 0, 0.7 and 1.2.
inline GateHeader gate_header(GateKind kind, const Checkpoint& base) {
  const ModelConfig& config = base.config();
  GateHeader header;
  header.kind = kind;
  header.hidden_size = config.hidden_size;
  header.num_hidden_layers = config.num_hidden_layers;
  header.num_key_value_heads = config.num_key_value_heads;
  if (kind != GateKind::kPoint) {
    header.heads = 2;
    header.head_dim = 10;  // no whole number of lanes
  }
  if (kind == GateKind::kCausal || kind == GateKind::kBlock) {
    header.reach = 7;
    header.rope_theta = 10000;
  }
  header.window = 5;
  header.sinks = 2;
  header.tiers = {{{0.0f, 0.5, 0.25}, {0.7f, 0.25, 0.5}, {1.2f, 0.125, 2.0}}};
  header.base = base_hash(base).value();
  header.calibration = {{"needle", GateTier::kMild, 0.48, 0.99, 0.98, 200, false},
                        {"two hops", GateTier::kHard, 0.13, 0.75, 0.5, 100, true}};
  return header;
}

inline GateFill random_gate(const GateHeader& header, uint32_t seed) {
  return [header, seed](size_t tensor, std::span<float> values) {
    const Shape shape = gate_tensors(header)[tensor].shape;
    std::mt19937 rng(seed + static_cast<uint32_t>(tensor));
    std::normal_distribution<float> normal;
    const float scale = 1.0f / std::sqrt(static_cast<float>(shape[shape.rank() - 1]));
    for (float& value : values) value = scale * normal(rng);
  };
}

}  // namespace coppice::model::testing
