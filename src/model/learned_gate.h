// What:    the gates of gate files: point and causal, and for evaluation global.
// Owns:    as gate.h.
// Threads: as gate.h.
// Fails:   as gate.h.
//
// With u the layer's normed input, for each KV head:
//   point    z = Ws u + b
//   causal   z = Ws u + b + Wo' a,  a = per head of the gate's own, over the last `reach` tokens j:
//            sum of softmax_j(rope(q') . rope(k'_j) / sqrt d') v'_j
// Source: Attention-Gate (arXiv 2410.12876), with a skip path and a bounded reach. A causal gate's
// memory is a ring of the rotated k' and the v' of the last reach - 1 tokens, a token's place being
// its position modulo reach - 1. A global gate aggregates over the rows of its sequence in the
// step, which must be the whole prompt, both ways and without positions.
#pragma once

#include "model/gate.h"

namespace coppice::model {

Expected<std::unique_ptr<Gate>> open_learned_gate(const std::string& path, const Checkpoint& base,
                                                  ops::Backend& backend,
                                                  const GateOptions& options);

}  // namespace coppice::model
