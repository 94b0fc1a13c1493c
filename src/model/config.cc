#include "model/config.h"

#include <array>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "model/json_keys.h"
#include "model/rope_scaling.h"
#include "model/strict_json.h"

namespace coppice::model {
namespace {

using nlohmann::json;

// What an architecture's class assumes when config.json leaves a key out.
struct ArchitectureRow {
  std::string_view class_name;  // "architectures": [...]
  std::string_view model_type;
  Architecture architecture;
  int32_t key_value_heads;  // 0: as many as query heads
  int32_t head_dim;         // 0: hidden_size / num_attention_heads
  bool always_qkv_bias;
  bool reads_attention_bias;
  bool qk_norm;
  bool needs_null_sliding_window;  // the class slides unless it is told not to
};
constexpr std::array<ArchitectureRow, 4> kArchitectures{{
    {"LlamaForCausalLM", "llama", Architecture::kLlama, 0, 0, false, true, false, false},
    {"MistralForCausalLM", "mistral", Architecture::kLlama, 8, 0, false, false, false, true},
    {"Qwen2ForCausalLM", "qwen2", Architecture::kQwen2, 32, 0, true, false, false, false},
    {"Qwen3ForCausalLM", "qwen3", Architecture::kQwen3, 32, 128, false, true, true, false},
}};

std::string architecture_names() {
  std::string names;
  for (const ArchitectureRow& row : kArchitectures) {
    names += (names.empty() ? "" : ", ") + std::string(row.class_name);
  }
  return names;
}

Expected<const ArchitectureRow*> find_architecture(const JsonKeys& keys) {
  const char* key = "architectures";
  const json* classes = keys.find(key);
  if (classes != nullptr && (!classes->is_array() || classes->size() != 1)) {
    return keys.wrong(key, "a list of one class");
  }
  if (classes == nullptr) key = "model_type";
  const json* name = classes ? &classes->front() : keys.find(key);
  if (name == nullptr || !name->is_string()) return keys.wrong(key, "the name of an architecture");
  for (const ArchitectureRow& row : kArchitectures) {
    const std::string_view wanted = classes ? row.class_name : row.model_type;
    if (name->get_ref<const std::string&>() == wanted) return &row;
  }
  return keys.unsupported(key, architecture_names());
}

// What would change the arithmetic and is not implemented is refused by name.
Status refuse_variants(const JsonKeys& keys, const ArchitectureRow& row) {
  TRY(const std::string activation, keys.text("hidden_act", "silu"));
  if (activation != "silu") return keys.unsupported("hidden_act", "\"silu\"");
  TRY(const bool mlp_bias, keys.flag("mlp_bias", false));
  if (mlp_bias) return keys.unsupported("mlp_bias", "models without MLP biases (false)");
  if (keys.find("quantization_config") != nullptr) {
    return keys.unsupported("quantization_config", "unquantised weights (F32, F16, BF16) and GGUF");
  }
  TRY(const double rotary, keys.number("partial_rotary_factor", 0.0, 1.0, 1.0));
  if (rotary != 1.0) return keys.unsupported("partial_rotary_factor", "1.0");
  TRY(const bool slides, keys.flag("use_sliding_window", false));
  if (slides) return keys.unsupported("use_sliding_window", "full attention (false)");
  if (row.needs_null_sliding_window && !keys.is_null("sliding_window")) {
    return keys.unsupported("sliding_window", "full attention (null)");
  }
  if (const json* types = keys.find("layer_types")) {
    if (!types->is_array()) return keys.wrong("layer_types", "a list");
    for (const json& type : *types) {
      if (type != "full_attention") {
        return keys.unsupported("layer_types", "layers of \"full_attention\" alone");
      }
    }
  }
  return {};
}

Expected<double> read_factor(const JsonKeys& keys, const char* key) {
  return keys.number(key, ConfigLimits::kLeastRopeFactor, ConfigLimits::kRopeFactor);
}

Expected<RopeScaling> read_llama3(const JsonKeys& keys, int32_t max_positions) {
  RopeScaling scaling{.type = RopeType::kLlama3};
  TRY(scaling.factor, read_factor(keys, "factor"));
  TRY(scaling.low_freq_factor, read_factor(keys, "low_freq_factor"));
  TRY(scaling.high_freq_factor, read_factor(keys, "high_freq_factor"));
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    return keys.wrong("high_freq_factor", "more than low_freq_factor");
  }
  TRY(scaling.original_max_position_embeddings,
      keys.integer("original_max_position_embeddings", 1, ConfigLimits::kPositions, max_positions));
  return scaling;
}

Expected<RopeScaling> read_scaling(const JsonKeys& keys, int32_t max_positions) {
  const char* key = keys.find("rope_type") != nullptr ? "rope_type" : "type";
  TRY(const std::string type, keys.text(key, "default"));
  if (type == "default") return RopeScaling{};
  if (type == "llama3") return read_llama3(keys, max_positions);
  if (type == "linear") {
    RopeScaling scaling{.type = RopeType::kLinear};
    TRY(scaling.factor, read_factor(keys, "factor"));
    return scaling;
  }
  return keys.unsupported(key, "\"default\", \"linear\" and \"llama3\"");
}

// Newer files keep everything about rope in rope_parameters, older ones have rope_theta beside
// rope_scaling.
Status read_rope(const JsonKeys& keys, ModelConfig& config) {
  TRY(config.rope_theta, keys.number("rope_theta", 1.0, ConfigLimits::kTheta, config.rope_theta));
  RopeScaling scaling;
  const char* key = keys.find("rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  if (const json* object = keys.find(key)) {
    if (!object->is_object()) return keys.wrong(key, "an object or null");
    for (const auto& [name, value] : object->items()) {
      if (value.is_object()) return keys.unsupported(key, "one set of numbers for all layers");
    }
    const JsonKeys rope(*object, keys.where() + ": " + key);
    TRY(config.rope_theta, rope.number("rope_theta", 1.0, ConfigLimits::kTheta, config.rope_theta));
    TRY(const double rotary, rope.number("partial_rotary_factor", 0.0, 1.0, 1.0));
    if (rotary != 1.0) return rope.unsupported("partial_rotary_factor", "1.0");
    TRY(scaling, read_scaling(rope, config.max_position_embeddings));
  }
  config.rope_inv_freq = rope_inverse_frequencies(config.rope_theta, config.head_dim, scaling);
  return check_frequencies(config, keys.where());
}

Status read_sizes(const JsonKeys& keys, const ArchitectureRow& row, ModelConfig& config) {
  TRY(config.hidden_size, keys.integer("hidden_size", 1, ConfigLimits::kHidden));
  TRY(config.intermediate_size, keys.integer("intermediate_size", 1, ConfigLimits::kIntermediate));
  TRY(config.num_hidden_layers, keys.integer("num_hidden_layers", 1, ConfigLimits::kLayers));
  TRY(config.num_attention_heads, keys.integer("num_attention_heads", 1, ConfigLimits::kHeads));
  const bool all_heads = row.key_value_heads == 0 || keys.is_null("num_key_value_heads");
  TRY(config.num_key_value_heads,
      keys.integer("num_key_value_heads", 1, ConfigLimits::kHeads,
                   all_heads ? config.num_attention_heads : row.key_value_heads));
  if (row.head_dim == 0 && keys.find("head_dim") == nullptr &&
      config.hidden_size % config.num_attention_heads != 0) {
    return keys.wrong("hidden_size", "a multiple of num_attention_heads where head_dim is missing");
  }
  const int32_t head_dim =
      row.head_dim != 0 ? row.head_dim : config.hidden_size / config.num_attention_heads;
  TRY(config.head_dim, keys.integer("head_dim", 2, ConfigLimits::kHeadDim, head_dim));
  TRY(config.vocab_size, keys.integer("vocab_size", 1, ConfigLimits::kVocab));
  TRY(config.max_position_embeddings,
      keys.integer("max_position_embeddings", 1, ConfigLimits::kPositions));
  TRY(config.rms_norm_eps, keys.number("rms_norm_eps", ConfigLimits::kLeastNormEps, 1.0, 1e-6));
  return {};
}

// One id, a list of them, or nothing (the ids stay as they are).
Status read_special_ids(const JsonKeys& keys, ModelConfig& config) {
  const int64_t last = config.vocab_size - 1;
  TRY(config.bos_token_id, keys.integer("bos_token_id", 0, last, config.bos_token_id));
  const json* eos = keys.find("eos_token_id");
  if (eos == nullptr) return {};
  if (!eos->is_array()) {
    TRY(const int32_t id, keys.integer("eos_token_id", 0, last));
    config.eos_token_ids = {id};
    return {};
  }
  config.eos_token_ids.clear();
  for (const json& element : *eos) {
    const std::optional<int64_t> id = JsonKeys::exact_integer(element);
    if (!id || *id < 0 || *id > last) {
      return keys.wrong("eos_token_id", "an id or a list of ids from 0 to " + std::to_string(last));
    }
    config.eos_token_ids.push_back(static_cast<int32_t>(*id));
  }
  return {};
}

Expected<JsonDocument> parse_object(const std::string& text, const std::string& where) {
  TRY(JsonDocument document, parse_json(text, where));
  if (!document.root.is_object()) {
    return fail(ErrorCode::kCorrupt, where + ": is not a JSON object");
  }
  return document;
}

}  // namespace

Expected<ModelConfig> read_config(const std::string& json, const std::string& where) {
  TRY(const JsonDocument document, parse_object(json, where));
  const JsonKeys keys(document.root, where);
  TRY(const ArchitectureRow* row, find_architecture(keys));
  TRY_STATUS(refuse_variants(keys, *row));
  ModelConfig config;
  config.architecture = row->architecture;
  config.qk_norm = row->qk_norm;
  TRY_STATUS(read_sizes(keys, *row, config));
  TRY_STATUS(check_config(config, where));
  TRY_STATUS(read_rope(keys, config));
  if (row->reads_attention_bias) {
    TRY(config.attention_bias, keys.flag("attention_bias", false));
    config.attention_output_bias = config.attention_bias;
  }
  config.attention_bias |= row->always_qkv_bias;
  TRY(config.tie_word_embeddings, keys.flag("tie_word_embeddings", false));
  TRY_STATUS(read_special_ids(keys, config));
  return config;
}

Status apply_generation_config(const std::string& json, const std::string& where,
                               ModelConfig& config) {
  TRY(const JsonDocument document, parse_object(json, where));
  return read_special_ids(JsonKeys(document.root, where), config);
}

Status check_config(const ModelConfig& config, const std::string& where) {
  if (config.num_attention_heads % config.num_key_value_heads != 0) {
    return fail(ErrorCode::kCorrupt, where + ": " + std::to_string(config.num_attention_heads) +
                                         " attention heads are not a multiple of " +
                                         std::to_string(config.num_key_value_heads) +
                                         " key-value heads");
  }
  if (config.head_dim < 2 || config.head_dim > ConfigLimits::kHeadDim || config.head_dim % 2 != 0) {
    return fail(ErrorCode::kCorrupt, where + ": head_dim is " + std::to_string(config.head_dim) +
                                         "; it must be even, from 2 to " +
                                         std::to_string(ConfigLimits::kHeadDim));
  }
  return {};
}

Status check_frequencies(const ModelConfig& config, const std::string& where) {
  for (const float frequency : config.rope_inv_freq) {
    if (std::isfinite(frequency) && frequency > 0.0f) continue;
    return fail(ErrorCode::kCorrupt, where + ": its rope parameters give the frequency " +
                                         std::to_string(frequency) +
                                         "; they must all be finite and more than 0");
  }
  return {};
}

bool is_in_config(std::string_view tensor) {
  return tensor.ends_with("rotary_emb.inv_freq") || tensor == "rope_freqs.weight";
}

}  // namespace coppice::model
