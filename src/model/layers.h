// What:    the blocks of a decoder layer: their weights by checkpoint name, and what they compute.
// Owns:    a block owns its weights; rows come from and go to the caller's views.
// Threads: one.
// Fails:   never after loading.
//
// Letters as in ops/backend.h: T rows, E hidden, F intermediate, Hq and Hkv heads, D head_dim.
#pragma once

#include <span>
#include <string>

#include "model/config.h"
#include "model/weight_loader.h"
#include "ops/backend.h"

namespace coppice::model {

// Projections to queries, keys and values. Biases and per-head norms where the config has them.
struct Attention {
  Linear q_proj;  // [Hq D, E]
  Linear k_proj;  // [Hkv D, E]
  Linear v_proj;  // [Hkv D, E]
  Linear o_proj;  // [E, Hq D]
  Vector q_norm;  // [D] or empty
  Vector k_norm;  // [D] or empty

  void want(const ModelConfig& config, const std::string& prefix, WeightLoader& loader);
};

// down(silu(gate(x)) * up(x)).
struct Mlp {
  std::unique_ptr<ops::Weight> gate_proj;  // [F, E]
  std::unique_ptr<ops::Weight> up_proj;    // [F, E]
  std::unique_ptr<ops::Weight> down_proj;  // [E, F]

  void want(const ModelConfig& config, const std::string& prefix, WeightLoader& loader);
};

struct DecoderLayer {
  Vector input_layernorm;           // [E]
  Vector post_attention_layernorm;  // [E]
  Attention attention;
  Mlp mlp;

  void want(const ModelConfig& config, const std::string& prefix, WeightLoader& loader);
};

// cos, sin [T, D/2] of position * inv_freq[i]. The product is rounded to f32 first, as
// transformers does (LlamaRotaryEmbedding.forward): at high positions that is what the trained
// angles are.
void rotary_angles(std::span<const int32_t> positions, std::span<const float> inv_freq,
                   const TensorView& cos, const TensorView& sin);

}  // namespace coppice::model
