#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iomanip>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf_checkpoint.h"
#include "model/rope_scaling.h"

namespace coppice::model {
namespace {

struct ArchitectureRow {
  std::string_view name;
  Architecture architecture;
  bool always_qkv_bias;
  bool qk_norm;
};
constexpr std::array<ArchitectureRow, 3> kArchitectures{{
    {"llama", Architecture::kLlama, false, false},
    {"qwen2", Architecture::kQwen2, true, false},
    {"qwen3", Architecture::kQwen3, false, true},
}};

// Keys of an architecture that change the arithmetic in ways that are not implemented; zero means
// that the model does without.
constexpr std::array<std::string_view, 9> kUnsupportedKeys{"expert_count",
                                                           "attention.sliding_window",
                                                           "attention.scale",
                                                           "embedding_scale",
                                                           "logit_scale",
                                                           "residual_scale",
                                                           "attn_logit_softcapping",
                                                           "final_logit_softcapping",
                                                           "rope.scaling.attn_factor"};

constexpr std::string_view kEmbedding = "token_embd.weight";
constexpr std::string_view kRopeFactors = "rope_freqs.weight";

// The metadata of one architecture: its keys begin with its name.
class Keys {
 public:
  Keys(const GgufFile& file, std::string_view prefix) : file_(file), prefix_(prefix) {}

  std::string name(std::string_view key) const { return prefix_ + "." + std::string(key); }
  bool has(std::string_view key) const { return file_.has(name(key)); }

  Expected<int32_t> integer(std::string_view key, int64_t least, int64_t most,
                            std::optional<int64_t> otherwise = {}) const {
    TRY(const int64_t number, file_.integer(name(key), least, most, otherwise));
    return static_cast<int32_t>(number);
  }
  Expected<double> number(std::string_view key, double least, double most,
                          std::optional<double> otherwise = {}) const {
    TRY(const double value, file_.number(name(key), otherwise));
    // As 32 bits hold the bounds, for most files hold such numbers in them.
    const auto single = static_cast<float>(value);
    if (!(single >= static_cast<float>(least) && single <= static_cast<float>(most))) {
      std::ostringstream reason;
      reason << std::setprecision(9) << file_.where() << ": " << name(key) << " is " << value
             << "; it must be from " << least << " to " << most;
      return fail(ErrorCode::kCorrupt, reason.str());
    }
    return value;
  }
  tl::unexpected<Error> unsupported(std::string_view key, const std::string& what) const {
    return fail(ErrorCode::kUnsupported, file_.where() + ": " + name(key) + " " + what);
  }

 private:
  const GgufFile& file_;
  std::string prefix_;
};

Expected<const ArchitectureRow*> find_architecture(const GgufFile& file) {
  TRY(const std::string_view type, file.text("general.type", "model"));
  if (type != "model") {
    return fail(ErrorCode::kUnsupported, file.where() + ": general.type is " + quote_name(type) +
                                             "; this build runs \"model\"");
  }
  TRY(const int64_t splits, file.integer("split.count", 0, UINT16_MAX, 0));
  if (splits > 1) {
    return fail(ErrorCode::kUnsupported,
                file.where() + ": split.count is " + std::to_string(splits) +
                    "; a GGUF model in several files must be merged into one first");
  }
  TRY(const std::string_view name, file.text("general.architecture"));
  for (const ArchitectureRow& row : kArchitectures) {
    if (row.name == name) return &row;
  }
  return fail(ErrorCode::kUnsupported, file.where() + ": general.architecture is " +
                                           quote_name(name) +
                                           "; this build runs llama, qwen2 and qwen3");
}

Status refuse_variants(const GgufFile& file, const Keys& keys) {
  for (const std::string_view key : kUnsupportedKeys) {
    if (!keys.has(key)) continue;
    TRY(const double number, file.number(keys.name(key)));
    const double neutral = key == "rope.scaling.attn_factor" ? 1.0 : 0.0;
    if (number != neutral) {
      return keys.unsupported(
          key, "is " + std::to_string(number) + "; this build runs models without it");
    }
  }
  for (const char* bias : {"blk.0.ffn_gate.bias", "blk.0.ffn_up.bias", "blk.0.ffn_down.bias"}) {
    if (file.tensors().contains(bias)) {
      return fail(ErrorCode::kUnsupported, file.where() + ": has the tensor \"" + bias +
                                               "\"; this build runs models without MLP biases");
    }
  }
  return {};
}

Status read_sizes(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  TRY(config.hidden_size, keys.integer("embedding_length", 1, ConfigLimits::kHidden));
  TRY(config.intermediate_size,
      keys.integer("feed_forward_length", 1, ConfigLimits::kIntermediate));
  TRY(config.num_hidden_layers, keys.integer("block_count", 1, ConfigLimits::kLayers));
  TRY(config.num_attention_heads, keys.integer("attention.head_count", 1, ConfigLimits::kHeads));
  TRY(config.num_key_value_heads,
      keys.integer("attention.head_count_kv", 1, ConfigLimits::kHeads, config.num_attention_heads));
  const int32_t even_share = config.hidden_size / config.num_attention_heads;
  TRY(config.head_dim, keys.integer("attention.key_length", 2, ConfigLimits::kHeadDim, even_share));
  for (const std::string_view key : {"attention.value_length", "rope.dimension_count"}) {
    TRY(const int32_t other, keys.integer(key, 1, ConfigLimits::kHeadDim, config.head_dim));
    if (other != config.head_dim) {
      return keys.unsupported(key, "is " + std::to_string(other) +
                                       "; this build runs models where it is the head's " +
                                       std::to_string(config.head_dim));
    }
  }
  TRY(config.max_position_embeddings, keys.integer("context_length", 1, ConfigLimits::kPositions));
  TRY(config.rms_norm_eps,
      keys.number("attention.layer_norm_rms_epsilon", ConfigLimits::kLeastNormEps, 1.0));

  const auto embedding = file.tensors().find(kEmbedding);
  if (embedding == file.tensors().end() || embedding->second.shape.rank() != 2 ||
      embedding->second.shape[0] < 1 || embedding->second.shape[0] > ConfigLimits::kVocab) {
    return fail(ErrorCode::kCorrupt, file.where() +
                                         ": has no tensor \"token_embd.weight\" of 1 to " +
                                         std::to_string(ConfigLimits::kVocab) + " rows");
  }
  const int64_t rows = embedding->second.shape[0];
  TRY(config.vocab_size, keys.integer("vocab_size", rows, rows, rows));
  return {};
}

// llama3 scaling arrives as a tensor of divisors, linear scaling as metadata.
Status read_rope(const GgufFile& file, const Keys& keys, ModelConfig& config) {
  TRY(config.rope_theta, keys.number("rope.freq_base", 1.0, ConfigLimits::kTheta, 10000.0));
  TRY(const std::string_view type, file.text(keys.name("rope.scaling.type"), "linear"));
  RopeScaling scaling;
  if (type == "linear") {
    TRY(const double older, keys.number("rope.scale_linear", 0.0, ConfigLimits::kRopeFactor, 0.0));
    TRY(const double factor,
        keys.number("rope.scaling.factor", 0.0, ConfigLimits::kRopeFactor, older));
    if (static_cast<float>(factor) >= static_cast<float>(ConfigLimits::kLeastRopeFactor)) {
      scaling = {.type = RopeType::kLinear, .factor = factor};
    } else if (factor != 0.0) {
      return fail(ErrorCode::kCorrupt, file.where() + ": the linear rope scaling factor " +
                                           std::to_string(factor) +
                                           " must be 0 (none) or at least 1e-6");
    }
  } else if (type != "none") {
    return keys.unsupported("rope.scaling.type", "is " + quote_name(type) +
                                                     "; this build runs \"none\", \"linear\" and "
                                                     "Llama 3's rope_freqs.weight");
  }
  config.rope_inv_freq = rope_inverse_frequencies(config.rope_theta, config.head_dim, scaling);
  const auto factors = file.tensors().find(kRopeFactors);
  if (factors == file.tensors().end()) return check_frequencies(config, file.where());
  const TensorEntry& entry = factors->second;
  std::vector<float> divisors(config.rope_inv_freq.size());
  const bool fits =
      entry.type == DType::kF32 && entry.shape == Shape{static_cast<int64_t>(divisors.size())};
  if (fits) {
    std::memcpy(divisors.data(), file.bytes().data() + entry.begin,
                divisors.size() * sizeof(float));
  }
  const auto usable = [](float f) {
    return f >= static_cast<float>(ConfigLimits::kLeastRopeFactor) &&
           f <= static_cast<float>(ConfigLimits::kRopeFactor);
  };
  if (!fits || !std::all_of(divisors.begin(), divisors.end(), usable)) {
    return fail(ErrorCode::kCorrupt, file.where() + ": tensor \"rope_freqs.weight\" at byte " +
                                         std::to_string(entry.begin) + " must be " +
                                         std::to_string(divisors.size()) +
                                         " F32 numbers from 1e-6 to 1e6");
  }
  divide_frequencies(config.rope_inv_freq, divisors);
  return check_frequencies(config, file.where());
}

Status read_special_ids(const GgufFile& file, ModelConfig& config) {
  const int64_t last = config.vocab_size - 1;
  TRY(const int64_t bos, file.integer("tokenizer.ggml.bos_token_id", 0, last, -1));
  config.bos_token_id = static_cast<int32_t>(bos);
  for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                          "tokenizer.ggml.eom_token_id"}) {
    TRY(const int64_t id, file.integer(key, 0, last, -1));
    const auto known = static_cast<int32_t>(id);
    auto& ids = config.eos_token_ids;
    if (id >= 0 && std::find(ids.begin(), ids.end(), known) == ids.end()) ids.push_back(known);
  }
  return {};
}

}  // namespace

std::string_view gguf_architecture(Architecture architecture) {
  const auto* row = std::ranges::find(kArchitectures, architecture, &ArchitectureRow::architecture);
  CHECK(row != kArchitectures.end());
  return row->name;
}

Expected<ModelConfig> read_gguf_config(const GgufFile& file) {
  TRY(const ArchitectureRow* row, find_architecture(file));
  const Keys keys(file, row->name);
  TRY_STATUS(refuse_variants(file, keys));
  ModelConfig config;
  config.architecture = row->architecture;
  config.qk_norm = row->qk_norm;
  TRY_STATUS(read_sizes(file, keys, config));
  TRY_STATUS(check_config(config, file.where()));
  TRY_STATUS(read_rope(file, keys, config));
  config.attention_bias = row->always_qkv_bias || file.tensors().contains("blk.0.attn_q.bias");
  config.attention_output_bias = file.tensors().contains("blk.0.attn_output.bias");
  config.tie_word_embeddings = !file.tensors().contains("output.weight");
  TRY_STATUS(read_special_ids(file, config));
  return config;
}

}  // namespace coppice::model
