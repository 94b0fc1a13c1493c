// What:    (tests) the engine's logits for a directory of weights, for comparison with the twin's;
//          the golden models and what transformers answers with them.
// Owns:    nothing.
// Threads: one.
// Fails:   as Checkpoint::open and Model::load; golden files that cannot be read are CHECKs.
//
// Apart from the tests that include Torch: its logging macros and ours share names.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coppice/error.h"

namespace coppice::train {

// Logits [T, V], row-major, of ids [T] after one another; weights and pages in f32. backend: "ref"
// or "cpu".
Expected<std::vector<float>> engine_logits(const std::string& directory, const std::string& backend,
                                           const std::vector<int32_t>& ids);

// tests/data/models/NAME: the tokens that transformers was given, and its logits [T, V] in f32.
struct Golden {
  std::vector<int32_t> ids;
  std::vector<float> logits;
};
Golden read_golden(const std::string& name);

}  // namespace coppice::train
