// What:    gate samples as one batch, with the predictions that have a loss.
// Owns:    its tensors.
// Threads: none of its own.
// Fails:   never.
//
// B sequences, T tokens of the longest, R predictions.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "train/gate_data.h"

namespace coppice::train {

struct GateBatch {
  torch::Tensor inputs;   // [B, T] int64; 0 beyond a sequence's end
  torch::Tensor lengths;  // [B] int64: tokens fed, all but the last
  torch::Tensor prompts;  // [B] int64
  torch::Tensor rows;     // [R] int64 in [0, B * T): a sample's rows in order, samples in order
  torch::Tensor targets;  // [R] int64
};

// Of a sample with more than most_rows predictions, so many are drawn.
GateBatch make_gate_batch(const std::vector<GateSample>& samples, int most_rows, uint64_t seed);

// logits [R, V] -> mean negative log likelihood of the targets []. With a teacher's logits [R, V],
// predictions that the teacher itself gets wrong count nothing: what the base does not know is not
// the cache's to keep.
torch::Tensor answer_loss(const torch::Tensor& logits, const torch::Tensor& teacher,
                          const GateBatch& batch);

}  // namespace coppice::train
