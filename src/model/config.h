// What:    what a checkpoint says about its architecture, checked.
// Owns:    plain values.
// Threads: any.
// Fails:   read_config: kCorrupt or kUnsupported naming the key, its value and what works.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coppice/error.h"

namespace coppice::model {

enum class Architecture { kLlama, kQwen2, kQwen3 };

// Field names are the checkpoint's (Hugging Face config.json).
struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  int32_t hidden_size = 0;          // E
  int32_t intermediate_size = 0;    // F
  int32_t num_hidden_layers = 0;    // L
  int32_t num_attention_heads = 0;  // Hq
  int32_t num_key_value_heads = 0;  // Hkv
  int32_t head_dim = 0;             // D
  int32_t vocab_size = 0;           // V
  int32_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  // Inverse frequencies [D/2] after scaling (default and llama3 types); what rope uses.
  std::vector<float> rope_inv_freq;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // q, k, v have biases (Qwen2; Llama when its config says so)
  bool qk_norm = false;         // per-head RMS norm of q and k before rope (Qwen3)
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

// Parses config.json text. `where` names the file in errors.
Expected<ModelConfig> read_config(const std::string& json, const std::string& where);

}  // namespace coppice::model
