// What:    (tests) the engine's decisions and logits under a gate file, for comparison with the
//          twin's.
// Owns:    nothing.
// Threads: one.
// Fails:   as Checkpoint::open, Gate::open and Model::load.
//
// Apart from the tests that include Torch: its logging macros and ours share names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "model/gate_header.h"

namespace coppice::train {

struct EngineGated {
  std::vector<float> logits;    // [T, V]
  std::vector<uint8_t> stored;  // [L, Hkv, T]: ops::keep_byte of each decision, 0 where dropped
};

// ids [T] in slices of `slice` tokens; weights and pages in f32. backend: "ref" or "cpu".
Expected<EngineGated> engine_gated(const std::string& directory, const std::string& gate_file,
                                   model::GateTier tier, const std::string& backend,
                                   const std::vector<int32_t>& ids, int32_t slice);

}  // namespace coppice::train
