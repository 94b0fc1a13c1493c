// What:    textbook attention: gathers a row's visible slots, softmax and sums in double.
// Owns:    nothing.
// Threads: one.
// Fails:   never. Ignores the two phases on purpose: it is what they are judged by.
#pragma once

#include "ops/backend.h"

namespace coppice::ops::ref {

// q, out [T, Hq, D]; ChunkAttention 2.1 for one row and head, with no partition at all.
void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
               const KvArena& arena, const TensorView& out);

}  // namespace coppice::ops::ref
