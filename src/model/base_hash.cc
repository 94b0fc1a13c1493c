#include "model/base_hash.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "base/splitmix.h"

namespace coppice::model {

namespace {

std::string_view name_of(Architecture architecture) {
  switch (architecture) {
    case Architecture::kLlama:
      return "llama";
    case Architecture::kQwen2:
      return "qwen2";
    case Architecture::kQwen3:
      return "qwen3";
  }
  CHECK(false);
}

}  // namespace

BaseHash::BaseHash(const ModelConfig& config) : tied_(config.tie_word_embeddings), state_(0) {
  mix("coppice base 1");
  mix(name_of(config.architecture));
  for (const int64_t number :
       {int64_t{config.hidden_size}, int64_t{config.intermediate_size},
        int64_t{config.num_hidden_layers}, int64_t{config.num_attention_heads},
        int64_t{config.num_key_value_heads}, int64_t{config.head_dim}, int64_t{config.vocab_size},
        int64_t{config.qk_norm}}) {
    mix(static_cast<uint64_t>(number));
  }
  // GGUF files have floats.
  mix(std::bit_cast<uint32_t>(static_cast<float>(config.rms_norm_eps)));
  mix(std::bit_cast<uint32_t>(static_cast<float>(config.rope_theta)));
}

void BaseHash::mix(uint64_t bits) { state_ = splitmix((state_ ^ bits) + kGoldenGamma); }

void BaseHash::mix(std::string_view text) {
  mix(text.size());
  for (const char c : text) mix(static_cast<unsigned char>(c));
}

bool BaseHash::covers(std::string_view name) const {
  if (is_in_config(name)) return false;
  return !(tied_ && name == "lm_head.weight");
}

void BaseHash::add(std::string_view name, int64_t rows, int64_t cols, const ReadRow& read) {
  mix(name);
  mix(static_cast<uint64_t>(rows));
  mix(static_cast<uint64_t>(cols));
  row_.resize(static_cast<size_t>(cols));
  const int64_t sampled = std::min(rows, kSampledRows);
  for (int64_t i = 0; i < sampled; ++i) {
    read(sampled == rows ? i : i * (rows - 1) / (sampled - 1), row_.data());
    for (const float x : row_) mix(std::bit_cast<uint32_t>(x));
  }
}

std::string BaseHash::hex() const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (int shift = 60; shift >= 0; shift -= 4) out += kDigits[state_ >> shift & 15];
  return out;
}

}  // namespace coppice::model
