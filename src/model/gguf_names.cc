#include "model/gguf_names.h"

#include <array>
#include <cstring>

namespace coppice::model {
namespace {

struct NamePair {
  std::string_view gguf;
  std::string_view hf;
};
constexpr std::array<NamePair, 3> kWhole{
    {{"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}}};
constexpr std::array<NamePair, 11> kInLayer{{{"attn_norm", "input_layernorm"},
                                             {"attn_q", "self_attn.q_proj"},
                                             {"attn_k", "self_attn.k_proj"},
                                             {"attn_v", "self_attn.v_proj"},
                                             {"attn_output", "self_attn.o_proj"},
                                             {"attn_q_norm", "self_attn.q_norm"},
                                             {"attn_k_norm", "self_attn.k_norm"},
                                             {"ffn_norm", "post_attention_layernorm"},
                                             {"ffn_gate", "mlp.gate_proj"},
                                             {"ffn_up", "mlp.up_proj"},
                                             {"ffn_down", "mlp.down_proj"}}};
constexpr NamePair kLayer{"blk.", "model.layers."};

// One side of the tables read as the other.
struct Direction {
  std::string_view NamePair::*from;
  std::string_view NamePair::*to;
};

std::string translate(std::string_view name, Direction d) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::string(name);
  const std::string_view stem = name.substr(0, dot);
  const std::string_view suffix = name.substr(dot);  // ".weight", ".bias"
  for (const NamePair& pair : kWhole) {
    if (pair.*d.from == stem) return std::string(pair.*d.to) + std::string(suffix);
  }
  const std::string_view prefix = kLayer.*d.from;
  if (!stem.starts_with(prefix)) return std::string(name);
  const size_t digits = stem.find('.', prefix.size());
  if (digits == std::string_view::npos) return std::string(name);
  const std::string_view layer = stem.substr(prefix.size(), digits - prefix.size());
  for (const NamePair& pair : kInLayer) {
    if (pair.*d.from == stem.substr(digits + 1)) {
      return std::string(kLayer.*d.to) + std::string(layer) + "." + std::string(pair.*d.to) +
             std::string(suffix);
    }
  }
  return std::string(name);
}

}  // namespace

std::string gguf_to_hf(std::string_view name) {
  return translate(name, {&NamePair::gguf, &NamePair::hf});
}
std::string hf_to_gguf(std::string_view name) {
  return translate(name, {&NamePair::hf, &NamePair::gguf});
}

int64_t interleaved_heads(const ModelConfig& config, std::string_view name) {
  if (config.architecture != Architecture::kLlama) return 0;
  const std::string_view stem = name.substr(0, name.rfind('.'));
  if (stem.ends_with(".self_attn.q_proj")) return config.num_attention_heads;
  if (stem.ends_with(".self_attn.k_proj")) return config.num_key_value_heads;
  return 0;
}

int64_t interleaved_row(int64_t n, int64_t head_dim) {
  const int64_t head = n / head_dim, at = n % head_dim, half = head_dim / 2;
  return head * head_dim + 2 * (at % half) + at / half;
}

void restore_rotary_rows(const std::byte* from, std::byte* to, int64_t heads, int64_t head_dim,
                         int64_t row_bytes) {
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t i = 0; i < head_dim / 2; ++i) {
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t source = head * head_dim + 2 * i + half;
        const int64_t target = head * head_dim + half * (head_dim / 2) + i;
        std::memcpy(to + target * row_bytes, from + source * row_bytes,
                    static_cast<size_t>(row_bytes));
      }
    }
  }
}

}  // namespace coppice::model
