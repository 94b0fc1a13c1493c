// What:    the gate's twin: one logit per token and KV head from what feeds q, k and v.
// Owns:    its parameters, f32, under the gate file's names.
// Threads: one caller; torch's own threads inside.
// Fails:   as torch does on wrong shapes.
//
// z_t = Wo' a_t + Ws u_t + b. point: a_t = 0. causal: a_t aggregates u over the last `reach`
// tokens, itself included, by a small attention with rotary positions. global: over the whole
// prompt, both ways, without positions; a decision there depends on what follows, so it is for
// comparison alone. B sequences, T tokens, E hidden, Hkv KV heads, n' AG heads of width d', r' = n'
// d'.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <torch/types.h>

#include "model/gate_header.h"
#include "train/tensor_file.h"

namespace coppice::train {

using model::GateHeader;
using model::GateKind;

// What a fresh gate's logits are: almost everything is kept.
inline constexpr double kGateBias = 4.0;

class GateNet {
 public:
  // Of the header's sizes and kind, which is not kBlock. Ws = 0, Wo' = 0, b = kGateBias; the rest
  // drawn from the seed.
  GateNet(const GateHeader& header, uint64_t seed);

  // u [B, T, E] -> logits [B, Hkv, T] of the layer. prompts [B] int64: what a global gate
  // aggregates over, in tokens (at least 1).
  torch::Tensor logits(int64_t layer, const torch::Tensor& u, const torch::Tensor& prompts) const;

  const GateHeader& header() const { return header_; }
  // "layers.0.ws" [Hkv, E], ".b" [Hkv]; with aggregation ".wq", ".wk", ".wv" [r', E], ".wo" [Hkv,
  // r'].
  const NamedTensors& parameters() const { return named_; }
  // Of one layer, by the last part of its name.
  const torch::Tensor& parameter(int64_t layer, std::string_view name) const;
  // The elements of one of parameters(), row-major: what write_gate asks for.
  std::vector<float> values(std::string_view name) const;

 private:
  struct Layer {
    torch::Tensor ws, b, wq, wk, wv, wo;
  };
  const torch::Tensor& find(std::string_view name) const;
  torch::Tensor aggregate_reach(const Layer& layer, const torch::Tensor& u) const;
  torch::Tensor aggregate_prompt(const Layer& layer, const torch::Tensor& u,
                                 const torch::Tensor& prompts) const;
  // u's projection by heads [B, n', T, d'].
  torch::Tensor heads(const torch::Tensor& u, const torch::Tensor& weight) const;

  GateHeader header_;
  std::vector<Layer> layers_;
  NamedTensors named_;
};

}  // namespace coppice::train
