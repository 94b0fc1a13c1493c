// What:    what a preset of `bench attention` amounts to, over the cases that were measured.
// Owns:    the measurements.
// Threads: one.
// Fails:   never.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "attention_measure.h"
#include "attention_presets.h"

namespace coppice::tools {

class AttentionSummary {
 public:
  void add(const PresetRow& row, AttentionMeasured measured);
  // Every case anew, against the highest ceilings that were seen: those of its moment may have been
  // lower, which flatters it.
  void hold_against(const Ceilings& ceilings);
  // {"summary": {preset, cases, floor_fraction, ...}}. Geometric means, nulls of nothing; ratios
  // are another way's time over two-phase's. floor_fractions: [cases] of {name, origin,
  // floor_fraction, floor_fraction_p10}, in the order they came.
  nlohmann::ordered_json json(const std::string& preset) const;
  // The same for readers; cases whose fraction fell since they came are named.
  void print(const std::string& preset) const;

 private:
  struct Case {
    std::string name, origin;
    double floor_fraction;  // when it came
    AttentionMeasured measured;
  };
  std::vector<Case> cases_;
};

}  // namespace coppice::tools
