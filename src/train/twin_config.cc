#include "train/twin_config.h"

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "model/rope_scaling.h"

namespace coppice::train {
namespace {

using nlohmann::ordered_json;

bool has_plain_frequencies(const TwinConfig& c) {
  if (c.rope_inv_freq.empty()) return true;
  const auto dim = static_cast<int32_t>(c.head_dim);
  return c.rope_inv_freq == model::rope_inverse_frequencies(c.rope_theta, dim, {});
}

}  // namespace

TwinConfig TwinConfig::of(const model::ModelConfig& config) {
  TwinConfig c;
  c.vocab_size = config.vocab_size;
  c.hidden_size = config.hidden_size;
  c.num_hidden_layers = config.num_hidden_layers;
  c.num_attention_heads = config.num_attention_heads;
  c.num_key_value_heads = config.num_key_value_heads;
  c.head_dim = config.head_dim;
  c.intermediate_size = config.intermediate_size;
  c.max_position_embeddings = config.max_position_embeddings;
  c.rope_theta = config.rope_theta;
  c.rms_norm_eps = config.rms_norm_eps;
  c.tie_word_embeddings = config.tie_word_embeddings;
  c.attention_bias = config.attention_bias;
  c.attention_output_bias = config.attention_output_bias;
  c.qk_norm = config.qk_norm;
  c.rope_inv_freq = config.rope_inv_freq;
  return c;
}

Expected<TwinConfig> TwinConfig::load(const std::filesystem::path& file) {
  TRY(const std::string text, read_file(file.string()));
  TRY(const model::ModelConfig config, model::read_config(text, file.string()));
  return of(config);
}

Status TwinConfig::save(const std::filesystem::path& file, const std::string& dtype) const {
  if (!tie_word_embeddings || attention_bias || qk_norm || !has_plain_frequencies(*this)) {
    return fail(ErrorCode::kUnsupported,
                file.string() +
                    ": only tied Llamas without biases, norms of heads and scaled "
                    "frequencies are written");
  }
  const ordered_json json = {{"architectures", {"LlamaForCausalLM"}},
                             {"model_type", "llama"},
                             {"vocab_size", vocab_size},
                             {"hidden_size", hidden_size},
                             {"intermediate_size", intermediate_size},
                             {"num_hidden_layers", num_hidden_layers},
                             {"num_attention_heads", num_attention_heads},
                             {"num_key_value_heads", num_key_value_heads},
                             {"head_dim", head_dim},
                             {"hidden_act", "silu"},
                             {"max_position_embeddings", max_position_embeddings},
                             {"rope_theta", rope_theta},
                             {"rms_norm_eps", rms_norm_eps},
                             {"attention_bias", false},
                             {"mlp_bias", false},
                             {"tie_word_embeddings", true},
                             {"bos_token_id", 0},
                             {"eos_token_id", 1},
                             {"pad_token_id", 2},
                             {"torch_dtype", dtype}};
  return write_file(file.string(), json.dump(2) + "\n");
}

}  // namespace coppice::train
