// What:    the shape of a twin: what it takes of a model's config.json.
// Owns:    plain values.
// Threads: any.
// Fails:   load: as model::read_config (file, key, what works). save: kUnsupported.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "model/config.h"

namespace coppice::train {

// The defaults are the bundled model's.
struct TwinConfig {
  int64_t vocab_size = 1024;
  int64_t hidden_size = 256;
  int64_t num_hidden_layers = 4;
  int64_t num_attention_heads = 4;
  int64_t num_key_value_heads = 2;
  int64_t head_dim = 64;
  int64_t intermediate_size = 768;
  int64_t max_position_embeddings = 8192;
  double rope_theta = 1e5;
  double rms_norm_eps = 1e-5;
  bool tie_word_embeddings = true;
  bool attention_bias = false;         // q, k, v have biases
  bool attention_output_bias = false;  // o has one
  bool qk_norm = false;                // heads of q and k are normed before rope
  // [D/2], rounded as transformers rounds them; empty: 1 / theta^(2i/D) in double.
  std::vector<float> rope_inv_freq;

  static TwinConfig of(const model::ModelConfig& config);
  static Expected<TwinConfig> load(const std::filesystem::path& file);
  // config.json as transformers reads it; dtype is "bfloat16" or "float32". Of plain Llamas alone:
  // tied, without biases, norms of heads or scaled frequencies.
  Status save(const std::filesystem::path& file, const std::string& dtype) const;
};

}  // namespace coppice::train
