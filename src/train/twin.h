// What:    the network's twin: transformers' LlamaForCausalLM in libtorch.
// Owns:    its parameters, f32, under the checkpoint's names.
// Threads: one caller; torch's own threads inside.
// Fails:   kCorrupt or kUnsupported (file, field) when a directory cannot be read.
//
// Dimension letters: B sequences, T tokens, E hidden, Hq query heads, Hkv KV heads, D head_dim,
// F intermediate, V vocabulary, L layers.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <torch/types.h>

#include "coppice/error.h"
#include "train/layers.h"

namespace coppice::train {

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

  static Expected<TwinConfig> load(const std::filesystem::path& file);
  // config.json as transformers reads it; dtype is "bfloat16" or "float32".
  Status save(const std::filesystem::path& file, const std::string& dtype) const;
};

struct TwinLayer {
  torch::Tensor input_norm;      // [E]
  torch::Tensor q, k, v;         // [Hq*D, E], [Hkv*D, E], [Hkv*D, E]
  torch::Tensor o;               // [E, Hq*D]
  torch::Tensor post_norm;       // [E]
  torch::Tensor gate, up, down;  // [F, E], [F, E], [E, F]
};

class Twin {
 public:
  // Weights drawn from the seed; see init() in twin.cc for what is structured.
  Twin(const TwinConfig& config, uint64_t seed);

  // tokens [B, T] int64 -> last hidden states after the final norm [B, T, E].
  torch::Tensor hidden(const torch::Tensor& tokens) const;
  // hidden states [..., E] -> logits [..., V].
  torch::Tensor logits(const torch::Tensor& hidden) const;

  const TwinConfig& config() const { return config_; }
  // Every parameter under its checkpoint name, in a fixed order.
  const std::vector<std::pair<std::string, torch::Tensor>>& parameters() const { return named_; }

  // config.json, model.safetensors (f32 or bf16), generation_config.json.
  Status save(const std::filesystem::path& dir, torch::Dtype dtype) const;
  static Expected<Twin> load(const std::filesystem::path& dir);

 private:
  torch::Tensor attend(const TwinLayer& layer, const torch::Tensor& x, const RopeTable& table,
                       const torch::Tensor& mask) const;
  void init(uint64_t seed);
  void name_parameters();

  TwinConfig config_;
  torch::Tensor embed_;  // [V, E], tied with the output
  std::vector<TwinLayer> layers_;
  torch::Tensor norm_;  // [E]
  std::vector<std::pair<std::string, torch::Tensor>> named_;
};

}  // namespace coppice::train
