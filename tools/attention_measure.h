// What:    one attention case, every way to attend over it timed in turn and held against what the
//          machine allows.
// Owns:    nothing.
// Threads: one; the backend's workers below.
// Fails:   as AttentionCase::create.
#pragma once

#include <nlohmann/json.hpp>
#include <vector>

#include "attention_case.h"
#include "ceilings.h"
#include "samples.h"

namespace coppice::tools {

struct AttentionMeasured {
  // The settled keys of a `bench attention` line, from two_phase_us on. _us: median of one layer
  // and step, in microseconds, with _us_p10 and _us_p90; null where a way could not be run.
  nlohmann::ordered_json json;
  std::vector<PlanCost> costs;  // by segment
  DType kv_type;
};

// The ceilings are taken once more after the ways.
Expected<AttentionMeasured> measure_attention(const AttentionShape& shape, Ceilings& ceilings,
                                              const Effort& effort,
                                              const ops::BackendOptions& options);
// The ceilings, and what depends on them, anew: a later case may have shown higher ones.
void hold_against(const Ceilings& ceilings, AttentionMeasured& measured);

// The fastest way over shared pages that is not two-phase, as a multiple of two-phase.
double shared_page_ratio(const nlohmann::ordered_json& line);

}  // namespace coppice::tools
