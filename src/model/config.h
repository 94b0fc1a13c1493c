// What:    what a checkpoint says about its architecture, checked.
// Owns:    plain values.
// Threads: any.
// Fails:   read_config: kCorrupt or kUnsupported naming the key, its value and what works.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
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
  // Inverse frequencies [D/2] after scaling (default, linear and llama3 types); what rope uses.
  std::vector<float> rope_inv_freq;
  bool tie_word_embeddings = false;
  bool attention_bias = false;         // q, k, v have biases (Qwen2; Llama, Qwen3 if they say so)
  bool attention_output_bias = false;  // o_proj has one too (Llama, Qwen3 with attention_bias)
  bool qk_norm = false;                // per-head RMS norm of q and k before rope (Qwen3)
  std::vector<int32_t> eos_token_ids;
  int32_t bos_token_id = -1;  // -1: none
};

// The most that any field may say; a file that asks for more is refused.
struct ConfigLimits {
  static constexpr int64_t kHidden = int64_t{1} << 17;
  static constexpr int64_t kIntermediate = int64_t{1} << 20;
  static constexpr int64_t kLayers = 1024;
  static constexpr int64_t kHeads = 1024;
  static constexpr int64_t kHeadDim = 1024;
  static constexpr int64_t kVocab = int64_t{1} << 24;
  static constexpr int64_t kPositions = int64_t{1} << 27;
  static constexpr double kTheta = 1e12;
  static constexpr double kLeastRopeFactor = 1e-6;
  static constexpr double kRopeFactor = 1e6;
  static constexpr double kLeastNormEps = 1e-12;
};

// Parses config.json text. `where` names the file in errors.
Expected<ModelConfig> read_config(const std::string& json, const std::string& where);

// generation_config.json's eos_token_id and bos_token_id, where given, replace the config's.
Status apply_generation_config(const std::string& json, const std::string& where,
                               ModelConfig& config);

// What the fields must satisfy together, whatever file they came from: whole groups of query heads,
// an even head_dim. `where` names the file.
Status check_config(const ModelConfig& config, const std::string& where);
// Every frequency is a number more than 0: factors that are fine one by one may overflow together.
Status check_frequencies(const ModelConfig& config, const std::string& where);

// Whether a tensor holds what the config has: frequencies of the rotary embedding, as old
// checkpoints and GGUF files store them.
bool is_in_config(std::string_view tensor);

}  // namespace coppice::model
