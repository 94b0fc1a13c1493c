// What:    gates that nobody trained: the rivals that a learned gate must beat, under the same rule
//          of what is seen and in the same memory.
// Owns:    plain values.
// Threads: as gate.h.
// Fails:   make_policy: kInvalidArgument naming the setting and what works.
//
//   NAME       keeps                                             settings (without one: required)
//   window     nothing beyond the window                         window=64
//   streaming  the sinks (StreamingLLM, arXiv 2309.17453)        window=64, sinks=4
//   random     each token with probability `keep`                keep, seed=1, window=64, sinks=4
//   key-norm   keys of an L2 norm of at most `threshold`         threshold, window=64, sinks=4
//              (arXiv 2406.11430: what is attended to has short keys)
//
// Every tier has the same rule. random decides by a hash of (seed, layer, head, position, token),
// so it too knows nothing but the past.
#pragma once

#include "model/gate.h"

namespace coppice::model {

// spec: "NAME[,key=value...]".
Expected<std::unique_ptr<Gate>> make_policy(const std::string& spec, const ModelConfig& config);

}  // namespace coppice::model
