#include "train/twin.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "train/tensor_file.h"

namespace coppice::train {
namespace {

using nlohmann::ordered_json;

constexpr double kEmbedStd = 0.05;
constexpr double kConstant = 0.1;  // embedding channel 0: the same for every token
constexpr double kQuiet = 0.02;    // parts that should not speak before they have learned

// Layer 0: head h looks back h + 1 tokens. Rotary pairs below kOffsetPairs make the peak.
constexpr int64_t kOffsetPairs = 16;
constexpr double kOffsetPeak = 4.5;  // |q| = |k| per rotary pair
constexpr double kOffsetWrite = 0.1;
// Layer 1: match alike pasts, through rotary pairs slow enough to reach far; copy the token found.
constexpr int64_t kSlowPairs = 16;  // first of them
constexpr double kMatch = 2.2;
constexpr double kCopy = 0.5;
constexpr int64_t kSelfPairs = 8;  // fast pairs that keep a position from matching itself
constexpr double kNotSelf = 4.5;

torch::Tensor orthogonal(int64_t n) {
  return std::get<0>(torch::linalg_qr(torch::randn({n, n}))).contiguous();
}

void look_back(TwinLayer& layer, const TwinConfig& c) {
  const int64_t group = c.num_attention_heads / c.num_key_value_heads, half = c.head_dim / 2;
  const double gain = kOffsetPeak * kEmbedStd / kConstant;
  layer.q.mul_(0.1);
  layer.k.mul_(0.1);
  for (int64_t h = 0; h < c.num_attention_heads; ++h) {
    for (int64_t i = 0; i < kOffsetPairs; ++i) {
      const double turn =
          static_cast<double>(h + 1) *
          std::pow(c.rope_theta, -static_cast<double>(i) / static_cast<double>(half));
      layer.k[h / group * c.head_dim + i][0] = gain;
      layer.q[h * c.head_dim + i][0] = gain * std::cos(turn);
      layer.q[h * c.head_dim + i + half][0] = -gain * std::sin(turn);
    }
  }
}

// written [E, Hq*D]: the orthonormal directions in which layer 0's heads wrote.
void match_and_copy(TwinLayer& layer, const TwinConfig& c, const torch::Tensor& written) {
  using torch::indexing::Slice;
  const int64_t group = c.num_attention_heads / c.num_key_value_heads, half = c.head_dim / 2;
  layer.k.mul_(0.1);
  layer.v.copy_(orthogonal(c.hidden_size).slice(0, 0, layer.v.size(0)));
  for (int64_t g = 0; g < c.num_key_value_heads; ++g) {
    for (int64_t i = 0; i < half; ++i) {
      for (int64_t row : {g * c.head_dim + i, g * c.head_dim + i + half}) {
        if (i >= kSlowPairs) {
          const auto read = torch::randn({c.hidden_size});
          layer.k[row] = torch::mv(written, read / read.norm() * kMatch);
        } else if (i < kSelfPairs) {
          layer.k[row].zero_();
        }
      }
    }
  }
  for (int64_t h = 0; h < c.num_attention_heads; ++h) {
    const Slice rows(h * c.head_dim, (h + 1) * c.head_dim);
    const Slice kv_rows(h / group * c.head_dim, (h / group + 1) * c.head_dim);
    layer.q.index_put_({rows}, layer.k.index({kv_rows}));
    layer.o.index_put_({Slice(), rows}, layer.v.index({kv_rows}).t() * kCopy);
    for (int64_t i = 0; i < kSelfPairs; ++i) layer.q[h * c.head_dim + i][0] = -kNotSelf;
  }
  for (int64_t g = 0; g < c.num_key_value_heads; ++g) {
    for (int64_t i = 0; i < kSelfPairs; ++i) layer.k[g * c.head_dim + i][0] = kNotSelf;
  }
}

}  // namespace

Twin::Twin(const TwinConfig& config, uint64_t seed) : config_(config) {
  const auto& c = config_;
  const int64_t q = c.num_attention_heads * c.head_dim;
  const int64_t kv = c.num_key_value_heads * c.head_dim;
  embed_ = torch::empty({c.vocab_size, c.hidden_size});
  norm_ = torch::ones({c.hidden_size});
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    TwinLayer layer;
    layer.input_norm = torch::ones({c.hidden_size});
    layer.q = torch::empty({q, c.hidden_size});
    layer.k = torch::empty({kv, c.hidden_size});
    layer.v = torch::empty({kv, c.hidden_size});
    layer.o = torch::empty({c.hidden_size, q});
    layer.post_norm = torch::ones({c.hidden_size});
    layer.gate = torch::empty({c.intermediate_size, c.hidden_size});
    layer.up = torch::empty({c.intermediate_size, c.hidden_size});
    layer.down = torch::empty({c.hidden_size, c.intermediate_size});
    layers_.push_back(layer);
  }
  init(seed);
  name_parameters();
  for (auto& [name, tensor] : named_) tensor.requires_grad_(true);
}

// Random weights, but with the two-layer induction circuit sketched in layers 0 and 1, which short
// runs find late or never. Layer 0: head h attends h + 1 tokens back, by RoPE alone: one embedding
// channel is constant, and q is k turned by the offset. Layer 1: q and k read what layer 0 wrote,
// by the same matrix, so that positions with alike pasts attend to each other; v and o copy the
// token that stands there. Everything is trained on. The sketch answers about one first token in
// four.
void Twin::init(uint64_t seed) {
  torch::NoGradGuard no_grad;
  torch::manual_seed(seed);
  const auto& c = config_;
  const double fan_e = 1.0 / std::sqrt(static_cast<double>(c.hidden_size));
  const double fan_f = 1.0 / std::sqrt(static_cast<double>(c.intermediate_size));
  embed_.normal_(0.0, kEmbedStd);
  embed_.select(1, 0).fill_(kConstant);
  for (TwinLayer& layer : layers_) {
    for (torch::Tensor* w : {&layer.q, &layer.k, &layer.v, &layer.gate, &layer.up}) {
      w->normal_(0.0, fan_e);
    }
    layer.o.normal_(0.0, fan_e * kQuiet);
    layer.down.normal_(0.0, fan_f * kQuiet);
  }
  if (c.num_hidden_layers < 2 || c.num_attention_heads * c.head_dim != c.hidden_size ||
      c.head_dim / 2 <= kSlowPairs) {
    return;  // another shape: plain random weights
  }
  const torch::Tensor written = orthogonal(c.hidden_size);  // [E, Hq*D]
  written[0].zero_();
  look_back(layers_[0], c);
  layers_[0].o.copy_(written * kOffsetWrite);
  match_and_copy(layers_[1], c, written);
}

void Twin::name_parameters() {
  named_.emplace_back("model.embed_tokens.weight", embed_);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const std::string at = "model.layers." + std::to_string(l) + ".";
    const TwinLayer& layer = layers_[l];
    named_.emplace_back(at + "input_layernorm.weight", layer.input_norm);
    named_.emplace_back(at + "self_attn.q_proj.weight", layer.q);
    named_.emplace_back(at + "self_attn.k_proj.weight", layer.k);
    named_.emplace_back(at + "self_attn.v_proj.weight", layer.v);
    named_.emplace_back(at + "self_attn.o_proj.weight", layer.o);
    named_.emplace_back(at + "post_attention_layernorm.weight", layer.post_norm);
    named_.emplace_back(at + "mlp.gate_proj.weight", layer.gate);
    named_.emplace_back(at + "mlp.up_proj.weight", layer.up);
    named_.emplace_back(at + "mlp.down_proj.weight", layer.down);
  }
  named_.emplace_back("model.norm.weight", norm_);
}

// x [B, T, E] (normed) -> attention output before o_proj [B, T, Hq*D].
torch::Tensor Twin::attend(const TwinLayer& layer, const torch::Tensor& x, const RopeTable& table,
                           const torch::Tensor& mask) const {
  const auto& c = config_;
  const int64_t b = x.size(0), t = x.size(1), d = c.head_dim;
  const int64_t hq = c.num_attention_heads, hkv = c.num_key_value_heads, group = hq / hkv;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  auto q = rope(torch::linear(x, layer.q).view({b, t, hq, d}).transpose(1, 2), table);
  auto k = rope(torch::linear(x, layer.k).view({b, t, hkv, d}).transpose(1, 2), table);
  auto v = torch::linear(x, layer.v).view({b, t, hkv, d}).transpose(1, 2);
  // The query heads of a group stand one after another over their one K: [B*Hkv, group*T, D].
  q = q.reshape({b * hkv, group * t, d});
  auto scores = torch::bmm(q, k.reshape({b * hkv, t, d}).transpose(1, 2));
  auto weights = torch::softmax(scores.view({b * hkv, group, t, t}) * scale + mask, -1);
  auto out = torch::bmm(weights.view({b * hkv, group * t, t}), v.reshape({b * hkv, t, d}));
  return out.view({b, hq, t, d}).transpose(1, 2).reshape({b, t, hq * d});
}

torch::Tensor Twin::hidden(const torch::Tensor& tokens) const {
  const RopeTable table = rope_table(tokens.size(1), config_.head_dim, config_.rope_theta);
  const torch::Tensor mask = causal_mask(tokens.size(1));
  auto x = torch::embedding(embed_, tokens);  // [B, T, E]
  for (const TwinLayer& layer : layers_) {
    const auto h = rms_norm(x, layer.input_norm, config_.rms_norm_eps);
    x = x + torch::linear(attend(layer, h, table, mask), layer.o);
    const auto m = rms_norm(x, layer.post_norm, config_.rms_norm_eps);
    x = x +
        torch::linear(swiglu(torch::linear(m, layer.gate), torch::linear(m, layer.up)), layer.down);
  }
  return rms_norm(x, norm_, config_.rms_norm_eps);
}

torch::Tensor Twin::logits(const torch::Tensor& hidden) const {
  return torch::linear(hidden, embed_);
}

Expected<TwinConfig> TwinConfig::load(const std::filesystem::path& file) {
  TRY(const std::string text, read_file(file.string()));
  const auto json = ordered_json::parse(text, nullptr, false);
  const std::string name = file.string();
  if (!json.is_object()) return fail(ErrorCode::kCorrupt, name + ": not a JSON object");
  TwinConfig c;
  std::string missing;
  const auto integer = [&](const char* key, int64_t& out) {
    const auto at = json.find(key);
    const bool good = at != json.end() && at->is_number_integer() && at->get<int64_t>() >= 1 &&
                      at->get<int64_t>() <= (int64_t{1} << 24);
    if (good) out = at->get<int64_t>();
    if (!good) missing = key;
  };
  integer("vocab_size", c.vocab_size);
  integer("hidden_size", c.hidden_size);
  integer("num_hidden_layers", c.num_hidden_layers);
  integer("num_attention_heads", c.num_attention_heads);
  integer("num_key_value_heads", c.num_key_value_heads);
  integer("head_dim", c.head_dim);
  integer("intermediate_size", c.intermediate_size);
  integer("max_position_embeddings", c.max_position_embeddings);
  if (!missing.empty())
    return fail(ErrorCode::kCorrupt, name + ": " + missing + ": no integer >= 1");
  const auto number = [&](const char* key, double& out) {
    const auto at = json.find(key);
    if (at != json.end() && at->is_number() && at->get<double>() > 0)
      out = at->get<double>();
    else
      missing = key;
  };
  number("rms_norm_eps", c.rms_norm_eps);
  const auto scaling = json.find("rope_parameters");
  if (json.contains("rope_theta") || scaling == json.end())
    number("rope_theta", c.rope_theta);
  else if (scaling->is_object())
    c.rope_theta = scaling->value("rope_theta", c.rope_theta);
  if (!missing.empty()) return fail(ErrorCode::kCorrupt, name + ": " + missing + ": no number > 0");
  if (c.num_attention_heads % c.num_key_value_heads != 0 || c.head_dim % 2 != 0) {
    return fail(ErrorCode::kUnsupported, name + ": heads must divide by KV heads, head_dim by 2");
  }
  if (!json.value("tie_word_embeddings", false)) {
    return fail(ErrorCode::kUnsupported, name + ": tie_word_embeddings: the twin is always tied");
  }
  return c;
}

Status TwinConfig::save(const std::filesystem::path& file, const std::string& dtype) const {
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

Status Twin::save(const std::filesystem::path& dir, torch::Dtype dtype) const {
  const bool half = dtype == torch::kBFloat16;
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& [name, tensor] : named_) tensors.emplace_back(name, tensor.detach().to(dtype));
  TRY_STATUS(config_.save(dir / "config.json", half ? "bfloat16" : "float32"));
  TRY_STATUS(write_tensors(dir / "model.safetensors", tensors, {{"format", "pt"}}));
  const ordered_json generation = {
      {"bos_token_id", 0}, {"eos_token_id", 1}, {"pad_token_id", 2}, {"do_sample", false}};
  return write_file((dir / "generation_config.json").string(), generation.dump(2) + "\n");
}

Expected<Twin> Twin::load(const std::filesystem::path& dir) {
  TRY(const TwinConfig config, TwinConfig::load(dir / "config.json"));
  TRY(const TensorFile file, read_tensors(dir / "model.safetensors"));
  Twin twin(config, 0);
  TRY_STATUS(copy_tensors(file, "", twin.parameters(), (dir / "model.safetensors").string()));
  return twin;
}

}  // namespace coppice::train
