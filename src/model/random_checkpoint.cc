#include "model/random_checkpoint.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/splitmix.h"
#include "model/rope_scaling.h"
#include "model/tensor_entry.h"
#include "model/tokenizer_document.h"
#include "text/byte_alphabet.h"

namespace coppice::model {
namespace {

constexpr int32_t kLeastVocabulary = 258;  // the bytes, a beginning and an end

struct Named {
  std::string_view name;
  std::array<int64_t, 7> numbers;  // E, L, Hq, Hkv, D, F, V
};
constexpr Named kShapes[] = {{"tiny", {64, 2, 4, 2, 16, 128, 300}},
                             {"L1B", {2048, 16, 32, 8, 64, 8192, 128256}}};

tl::unexpected<Error> bad_shape(const std::string& shape) {
  return fail(ErrorCode::kInvalidArgument,
              "random weights of shape " + quote_name(shape) +
                  "; it must be tiny, L1B or seven numbers E,L,Hq,Hkv,D,F,V (hidden size, layers, "
                  "query heads, KV heads, even head_dim, FFN size, vocabulary from 258 up)");
}

Expected<std::array<int64_t, 7>> read_numbers(const std::string& shape) {
  for (const Named& named : kShapes) {
    if (named.name == shape) return named.numbers;
  }
  std::array<int64_t, 7> numbers{};
  const char* at = shape.data();
  const char* const end = at + shape.size();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto [next, error] = std::from_chars(at, end, numbers[i]);
    if (error != std::errc() || numbers[i] < 1) return bad_shape(shape);
    at = next;
    if (i + 1 < numbers.size() && (at == end || *at++ != ',')) return bad_shape(shape);
  }
  if (at != end) return bad_shape(shape);
  return numbers;
}

uint64_t stream_of(uint64_t seed, std::string_view name) {
  uint64_t stream = splitmix(seed + 1);
  for (const char c : name) stream = splitmix(stream ^ static_cast<unsigned char>(c));
  return stream;
}

// The sum of four uniform 16-bit numbers: near enough to normal, and fast.
float nearly_normal(uint64_t bits) {
  int64_t sum = 0;
  for (int i = 0; i < 4; ++i) sum += static_cast<int64_t>(bits >> 16 * i & 0xffff);
  return static_cast<float>(sum - 2 * 0xffff) * (1.7320508f / 0xffff);
}

class RandomCheckpoint : public Checkpoint {
 public:
  RandomCheckpoint(const std::string& shape, ModelConfig config, uint64_t seed)
      : path_(std::string(kRandomPrefix) + shape), config_(std::move(config)), seed_(seed) {
    const int64_t hidden = config_.hidden_size, inner = config_.intermediate_size;
    const int64_t queries = int64_t{config_.num_attention_heads} * config_.head_dim;
    const int64_t keys = int64_t{config_.num_key_value_heads} * config_.head_dim;
    shapes_["model.embed_tokens.weight"] = {config_.vocab_size, hidden};
    shapes_["model.norm.weight"] = {hidden};
    for (int32_t i = 0; i < config_.num_hidden_layers; ++i) {
      const std::string layer = "model.layers." + std::to_string(i) + ".";
      shapes_[layer + "input_layernorm.weight"] = {hidden};
      shapes_[layer + "post_attention_layernorm.weight"] = {hidden};
      shapes_[layer + "self_attn.q_proj.weight"] = {queries, hidden};
      shapes_[layer + "self_attn.k_proj.weight"] = {keys, hidden};
      shapes_[layer + "self_attn.v_proj.weight"] = {keys, hidden};
      shapes_[layer + "self_attn.o_proj.weight"] = {hidden, queries};
      shapes_[layer + "mlp.gate_proj.weight"] = {inner, hidden};
      shapes_[layer + "mlp.up_proj.weight"] = {inner, hidden};
      shapes_[layer + "mlp.down_proj.weight"] = {hidden, inner};
    }
  }

  const ModelConfig& config() const override { return config_; }
  const std::string& path() const override { return path_; }
  std::string tokenizer_path() const override { return path_; }
  bool has(std::string_view name) const override { return shapes_.find(name) != shapes_.end(); }
  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    for (const auto& [name, shape] : shapes_) out.push_back(name);
    return out;
  }

  Expected<Shape> shape(std::string_view name) const override {
    const auto found = shapes_.find(name);
    if (found == shapes_.end()) {
      return fail(ErrorCode::kNotFound, "random weights: no tensor " + quote_name(name));
    }
    return found->second;
  }

  Expected<TensorForm> check(std::string_view name, const Shape& wanted) const override {
    TRY(const Shape own, shape(name));
    CHECK(own == wanted);  // both come from this config
    return TensorForm{DType::kBF16, dtype_bytes(DType::kBF16, wanted.elements())};
  }

  // Norms are ones; matrices keep a vector's length: variance 1 / K.
  Expected<TensorData> tensor(std::string_view name, const Shape& wanted) const override {
    TRY(const TensorForm form, check(name, wanted));
    TRY(Buffer copy, Buffer::allocate(form.copy_bytes));
    const TensorView view = copy.view(form.type, wanted);
    bf16* out = view.as_bf16();
    if (wanted.rank() == 1) {
      std::fill_n(out, wanted.elements(), to_bf16(1.0f));
    } else {
      const uint64_t stream = stream_of(seed_, name);
      const float scale = 1.0f / std::sqrt(static_cast<float>(wanted[1]));
      for (int64_t i = 0; i < wanted.elements(); ++i) {
        const uint64_t bits = splitmix(stream + kGoldenGamma * static_cast<uint64_t>(i));
        out[i] = to_bf16(scale * nearly_normal(bits));
      }
    }
    return TensorData{view, std::move(copy)};
  }

  Expected<std::string> tokenizer_json() const override {
    using nlohmann::json;
    json vocab = json::object();
    for (int byte = 0; byte < 256; ++byte) {
      std::string stand_in;
      text::append_byte_chars(std::string(1, static_cast<char>(byte)), &stand_in);
      vocab[stand_in] = byte;
    }
    return tokenizer_document({.vocab = std::move(vocab),
                               .merges = json::array(),
                               .added_tokens = json::array({added_token(256, "<|bos|>", true),
                                                            added_token(257, "<|eos|>", true)}),
                               .normalizer = nullptr,
                               .pre_tokenizer = byte_level(true),
                               .post_processor = nullptr})
        .dump();
  }

 private:
  std::string path_;
  ModelConfig config_;
  uint64_t seed_;
  std::map<std::string, Shape, std::less<>> shapes_;
};

}  // namespace

Expected<ModelConfig> random_config(const std::string& shape) {
  TRY(const auto numbers, read_numbers(shape));
  const auto [hidden, layers, heads, kv_heads, head_dim, inner, vocabulary] = numbers;
  if (hidden > ConfigLimits::kHidden || layers > ConfigLimits::kLayers ||
      heads > ConfigLimits::kHeads || kv_heads > heads || inner > ConfigLimits::kIntermediate ||
      head_dim > ConfigLimits::kHeadDim || vocabulary > ConfigLimits::kVocab ||
      vocabulary < kLeastVocabulary) {
    return bad_shape(shape);
  }
  ModelConfig config;
  config.hidden_size = static_cast<int32_t>(hidden);
  config.num_hidden_layers = static_cast<int32_t>(layers);
  config.num_attention_heads = static_cast<int32_t>(heads);
  config.num_key_value_heads = static_cast<int32_t>(kv_heads);
  config.head_dim = static_cast<int32_t>(head_dim);
  config.intermediate_size = static_cast<int32_t>(inner);
  config.vocab_size = static_cast<int32_t>(vocabulary);
  config.max_position_embeddings = 131072;
  config.rope_theta = 500000.0;
  config.tie_word_embeddings = true;
  config.bos_token_id = 256;
  config.eos_token_ids = {257};
  if (const Status checked = check_config(config, "random weights of shape " + quote_name(shape));
      !checked) {
    return fail(ErrorCode::kInvalidArgument, checked.error().message);
  }
  config.rope_inv_freq = rope_inverse_frequencies(config.rope_theta, config.head_dim, {});
  return config;
}

Expected<std::unique_ptr<Checkpoint>> open_random(const std::string& shape, uint64_t seed) {
  TRY(ModelConfig config, random_config(shape));
  return std::make_unique<RandomCheckpoint>(shape, std::move(config), seed);
}

}  // namespace coppice::model
