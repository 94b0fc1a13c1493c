// What:    KVzip's scores: what a context's keys and values are worth when the context is repeated.
// Owns:    the scores and the inputs they belong to.
// Threads: one caller; torch's own threads inside.
// Fails:   as torch does.
//
// The sequence is a context and, after a marker, itself once more (GateData::draw_copy). The score
// of key j of a layer's KV head is the most attention that any row of the second copy pays to it,
// over the query heads of the group.
// B sequences, T tokens, E hidden, Hq and Hkv heads, D head_dim.
#pragma once

#include <vector>

#include <torch/types.h>

#include "train/attention_hook.h"
#include "train/gate_batch.h"
#include "train/gate_net.h"
#include "train/twin.h"

namespace coppice::train {

class ReplayScores : public AttentionHook {
 public:
  // prompts, lengths [B] int64: rows in [prompt, length) replay keys in [0, prompt). value_norms: a
  // row's attention to j counts by |Wo_h v_j| / |x_t|, its share of what the row becomes (KVzip+).
  ReplayScores(const Twin& twin, const torch::Tensor& prompts, const torch::Tensor& lengths,
               bool value_norms);

  torch::Tensor attend(const AttentionInputs& in) override;

  // Of one layer, in the order in which the twin asked.
  const torch::Tensor& scores(int64_t layer) const { return at(scores_, layer); }  // [B, Hkv, T]
  const torch::Tensor& inputs(int64_t layer) const { return at(inputs_, layer); }  // [B, T, E]

 private:
  static const torch::Tensor& at(const std::vector<torch::Tensor>& list, int64_t layer) {
    return list[static_cast<size_t>(layer)];
  }

  const Twin& twin_;
  torch::Tensor prompts_, lengths_;
  bool value_norms_;
  std::vector<torch::Tensor> scores_, inputs_;
};

// Mean squared error of the gate's logits against the log scores, over layers, heads and the
// prompts' tokens from `sinks` on []. With centre, the gate's biases are first set to the mean log
// score of their head.
torch::Tensor replay_loss(const GateNet& net, const ReplayScores& replay, const GateBatch& batch,
                          int64_t sinks, bool centre);

}  // namespace coppice::train
