// What:    one step's gradients from several batches, by several threads.
// Owns:    nothing that outlives the call.
// Threads: starts and joins its own; torch's own threads must be held to one below it.
// Fails:   never; a loss that is not finite is the caller's to see.
//
// A thread takes the next batch when it is done with one, so that a core taken away by other work
// delays a batch and not every operation of every batch. The sum is taken in the batches' order:
// the same bits whatever the threads.
#pragma once

#include <vector>

#include "train/lesson.h"
#include "train/twin.h"

namespace coppice::train {

// Adds to every parameter's gradient; returns the weighted mean loss over all batches.
double add_gradients(const Twin& twin, const std::vector<Batch>& batches, int threads);

}  // namespace coppice::train
