// What:    the network's twin: Llama and its kin (Mistral, Qwen2, Qwen3) in libtorch, as
// transformers
//          has them.
// Owns:    its parameters, f32, under the checkpoint's names. A copy shares them.
// Threads: one caller; torch's own threads inside.
// Fails:   kCorrupt or kUnsupported (file, field) when a directory cannot be read.
//
// Dimension letters: B sequences, T tokens, E hidden, Hq query heads, Hkv KV heads, D head_dim,
// F intermediate, V vocabulary, L layers.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <torch/types.h>

#include "coppice/error.h"
#include "train/attention_hook.h"
#include "train/layers.h"
#include "train/tensor_file.h"
#include "train/twin_config.h"

namespace coppice::train {

// A low-rank addition to a projection [out, in]: up * down.
struct Adapter {
  torch::Tensor down, up;  // [rank, in], [out, rank]; undefined: none
};

struct TwinLayer {
  torch::Tensor input_norm;                      // [E]
  torch::Tensor q, k, v;                         // [Hq*D, E], [Hkv*D, E], [Hkv*D, E]
  torch::Tensor o;                               // [E, Hq*D]
  torch::Tensor q_bias, k_bias, v_bias, o_bias;  // [out] or undefined
  torch::Tensor q_norm, k_norm;                  // [D] or undefined
  Adapter q_adapter, k_adapter, v_adapter, o_adapter;
  torch::Tensor post_norm;       // [E]
  torch::Tensor gate, up, down;  // [F, E], [F, E], [E, F]
};

class Twin {
 public:
  // Weights drawn from the seed; see init() in twin.cc for what is structured.
  Twin(const TwinConfig& config, uint64_t seed);

  // tokens [B, T] int64 -> last hidden states after the final norm [B, T, E]. With a hook,
  // attention is the hook's; without, every row sees all before it.
  torch::Tensor hidden(const torch::Tensor& tokens, AttentionHook* hook = nullptr) const;
  // hidden states [..., E] -> logits [..., V].
  torch::Tensor logits(const torch::Tensor& hidden) const;

  const TwinConfig& config() const { return config_; }
  // Every parameter under its checkpoint name, in a fixed order.
  const NamedTensors& parameters() const { return named_; }
  const std::vector<TwinLayer>& layers() const { return layers_; }
  void freeze();

  // Adapters of q, k, v and o in every layer, adding nothing yet; the twin's copies made before
  // stay without. "layers.0.q.down", "layers.0.q.up", ...
  void add_adapters(int64_t rank, uint64_t seed);
  NamedTensors adapters() const;
  // Parameters [as parameters()] with the adapters' products added.
  NamedTensors merged() const;

  // config.json, model.safetensors (f32 or bf16), generation_config.json.
  Status save(const std::filesystem::path& dir, torch::Dtype dtype) const;
  // A directory (or GGUF file) that the engine can load.
  static Expected<Twin> load(const std::filesystem::path& path);

 private:
  explicit Twin(const TwinConfig& config);  // weights not yet set
  AttentionInputs project(int64_t index, const torch::Tensor& x, const RopeTable& table) const;
  torch::Tensor attend(const AttentionInputs& in, const torch::Tensor& mask) const;
  void init(uint64_t seed);
  void name_parameters();

  TwinConfig config_;
  torch::Tensor embed_;  // [V, E]
  torch::Tensor head_;   // [V, E], or undefined: tied to embed_
  std::vector<TwinLayer> layers_;
  torch::Tensor norm_;  // [E]
  NamedTensors named_;
};

}  // namespace coppice::train
