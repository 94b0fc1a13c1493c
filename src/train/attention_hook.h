// What:    what replaces the twin's attention: a gate's masked form, a scorer that looks on.
// Owns:    nothing.
// Threads: one caller; torch's own threads inside.
// Fails:   as torch does.
//
// B sequences, T tokens, E hidden, Hq and Hkv heads, D head_dim.
#pragma once

#include <torch/types.h>

namespace coppice::train {

// What a layer's attention is computed from.
struct AttentionInputs {
  int64_t layer = 0;
  torch::Tensor x;     // [B, T, E] the residual stream
  torch::Tensor u;     // [B, T, E] its norm, from which q, k and v are made
  torch::Tensor q;     // [B, Hq, T, D] after norms and rope
  torch::Tensor k, v;  // [B, Hkv, T, D]
};

class AttentionHook {
 public:
  virtual ~AttentionHook() = default;
  // The layer's attention output before o_proj [B, Hq, T, D].
  virtual torch::Tensor attend(const AttentionInputs& in) = 0;
};

}  // namespace coppice::train
