// What:    a pass of the twin under a gate: decisions layer by layer, kept for the losses.
// Owns:    what the pass decided; the net must outlive it.
// Threads: one caller; torch's own threads inside.
// Fails:   as torch does.
//
// B sequences, T tokens, L layers, Hkv KV heads.
#pragma once

#include <vector>

#include <ATen/core/Generator.h>

#include "train/attention_hook.h"
#include "train/gate_net.h"
#include "train/masked_attention.h"

namespace coppice::train {

// Every row sees all before it, by blocks of rows: what Twin does without a hook, in less memory.
class UngatedPass : public AttentionHook {
 public:
  torch::Tensor attend(const AttentionInputs& in) override;
};

struct GateMask {
  Visibility visibility;
  // Coefficients floor + (1 - floor) p instead of decisions; 0: decided hard, straight through.
  double soft_floor = 0;
  // Logistic noise of this scale on every logit; 0: none.
  double noise = 0;
  c10::optional<at::Generator> generator;  // of the noise
};

class GatedPass : public AttentionHook {
 public:
  // prompts [B] int64 as GateNet::logits takes them; shifts [B] f32 added to the sequence's logits:
  // a token is kept where logit + shift >= 0.
  GatedPass(const GateNet& net, const GateMask& mask, const torch::Tensor& prompts,
            const torch::Tensor& shifts);

  torch::Tensor attend(const AttentionInputs& in) override;

  // All [B, L, Hkv, T], in the order in which the twin asked. logits: the net's own, without shift
  // and noise.
  torch::Tensor logits() const { return torch::stack(logits_, 1); }
  torch::Tensor probabilities() const { return torch::stack(probabilities_, 1); }
  // 1 where the gate keeps, else 0 (soft: the probability); protection is not counted in.
  torch::Tensor kept() const { return torch::stack(kept_, 1); }

 private:
  const GateNet& net_;
  GateMask mask_;
  torch::Tensor prompts_, shifts_;
  std::vector<torch::Tensor> logits_, probabilities_, kept_;
};

}  // namespace coppice::train
