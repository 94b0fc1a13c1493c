#include "model/layers.h"

#include <cmath>

namespace coppice::model {

void Attention::want(const ModelConfig& config, const std::string& prefix, WeightLoader& loader) {
  const int64_t hidden = config.hidden_size;
  const int64_t queries = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t keys = int64_t{config.num_key_value_heads} * config.head_dim;
  loader.want(prefix + "q_proj", queries, hidden, config.attention_bias, q_proj);
  loader.want(prefix + "k_proj", keys, hidden, config.attention_bias, k_proj);
  loader.want(prefix + "v_proj", keys, hidden, config.attention_bias, v_proj);
  loader.want(prefix + "o_proj", hidden, queries, config.attention_output_bias, o_proj);
  if (!config.qk_norm) return;
  loader.want(prefix + "q_norm.weight", config.head_dim, q_norm);
  loader.want(prefix + "k_norm.weight", config.head_dim, k_norm);
}

void Mlp::want(const ModelConfig& config, const std::string& prefix, WeightLoader& loader) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  loader.want(prefix + "gate_proj.weight", inner, hidden, gate_proj);
  loader.want(prefix + "up_proj.weight", inner, hidden, up_proj);
  loader.want(prefix + "down_proj.weight", hidden, inner, down_proj);
}

void DecoderLayer::want(const ModelConfig& config, const std::string& prefix,
                        WeightLoader& loader) {
  loader.want(prefix + "input_layernorm.weight", config.hidden_size, input_layernorm);
  attention.want(config, prefix + "self_attn.", loader);
  loader.want(prefix + "post_attention_layernorm.weight", config.hidden_size,
              post_attention_layernorm);
  mlp.want(config, prefix + "mlp.", loader);
}

void rotary_angles(std::span<const int32_t> positions, std::span<const float> inv_freq,
                   const TensorView& cos, const TensorView& sin) {
  const size_t half = inv_freq.size();
  for (size_t t = 0; t < positions.size(); ++t) {
    for (size_t i = 0; i < half; ++i) {
      const double angle = static_cast<float>(positions[t]) * inv_freq[i];
      cos.f32()[t * half + i] = static_cast<float>(std::cos(angle));
      sin.f32()[t * half + i] = static_cast<float>(std::sin(angle));
    }
  }
}

}  // namespace coppice::model
