#include "train/twin.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "base/file.h"
#include "train/checkpoint_reader.h"

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

// x W^T + bias, and the adapter's share.
torch::Tensor adapted(const torch::Tensor& x, const torch::Tensor& w, const torch::Tensor& bias,
                      const Adapter& adapter) {
  const auto y = torch::linear(x, w, bias);
  if (!adapter.down.defined()) return y;
  return y + torch::linear(torch::linear(x, adapter.down), adapter.up);
}

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

Twin::Twin(const TwinConfig& config) : config_(config) {
  const auto& c = config_;
  const int64_t q = c.num_attention_heads * c.head_dim;
  const int64_t kv = c.num_key_value_heads * c.head_dim;
  embed_ = torch::empty({c.vocab_size, c.hidden_size});
  if (!c.tie_word_embeddings) head_ = torch::empty({c.vocab_size, c.hidden_size});
  norm_ = torch::ones({c.hidden_size});
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    TwinLayer layer;
    layer.input_norm = torch::ones({c.hidden_size});
    layer.q = torch::empty({q, c.hidden_size});
    layer.k = torch::empty({kv, c.hidden_size});
    layer.v = torch::empty({kv, c.hidden_size});
    layer.o = torch::empty({c.hidden_size, q});
    if (c.attention_bias) {
      layer.q_bias = torch::zeros({q});
      layer.k_bias = torch::zeros({kv});
      layer.v_bias = torch::zeros({kv});
    }
    if (c.attention_output_bias) layer.o_bias = torch::zeros({c.hidden_size});
    if (c.qk_norm) {
      layer.q_norm = torch::ones({c.head_dim});
      layer.k_norm = torch::ones({c.head_dim});
    }
    layer.post_norm = torch::ones({c.hidden_size});
    layer.gate = torch::empty({c.intermediate_size, c.hidden_size});
    layer.up = torch::empty({c.intermediate_size, c.hidden_size});
    layer.down = torch::empty({c.hidden_size, c.intermediate_size});
    layers_.push_back(layer);
  }
  name_parameters();
}

Twin::Twin(const TwinConfig& config, uint64_t seed) : Twin(config) {
  init(seed);
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
  if (head_.defined()) head_.normal_(0.0, fan_e);
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
  const auto add = [&](const std::string& name, const torch::Tensor& tensor) {
    if (tensor.defined()) named_.emplace_back(name, tensor);
  };
  add("model.embed_tokens.weight", embed_);
  for (size_t l = 0; l < layers_.size(); ++l) {
    const std::string at = "model.layers." + std::to_string(l) + ".";
    const TwinLayer& layer = layers_[l];
    add(at + "input_layernorm.weight", layer.input_norm);
    add(at + "self_attn.q_proj.weight", layer.q);
    add(at + "self_attn.k_proj.weight", layer.k);
    add(at + "self_attn.v_proj.weight", layer.v);
    add(at + "self_attn.o_proj.weight", layer.o);
    add(at + "self_attn.q_proj.bias", layer.q_bias);
    add(at + "self_attn.k_proj.bias", layer.k_bias);
    add(at + "self_attn.v_proj.bias", layer.v_bias);
    add(at + "self_attn.o_proj.bias", layer.o_bias);
    add(at + "self_attn.q_norm.weight", layer.q_norm);
    add(at + "self_attn.k_norm.weight", layer.k_norm);
    add(at + "post_attention_layernorm.weight", layer.post_norm);
    add(at + "mlp.gate_proj.weight", layer.gate);
    add(at + "mlp.up_proj.weight", layer.up);
    add(at + "mlp.down_proj.weight", layer.down);
  }
  add("model.norm.weight", norm_);
  add("lm_head.weight", head_);
}

void Twin::freeze() {
  for (auto& [name, tensor] : named_) tensor.requires_grad_(false);
}

// x [B, T, E], the residual stream, normed and projected: heads in front, q and k turned.
AttentionInputs Twin::project(int64_t index, const torch::Tensor& x, const RopeTable& table) const {
  const TwinLayer& layer = layers_[static_cast<size_t>(index)];
  const auto& c = config_;
  const int64_t b = x.size(0), t = x.size(1), d = c.head_dim;
  AttentionInputs in{index, x, rms_norm(x, layer.input_norm, c.rms_norm_eps), {}, {}, {}};
  const auto heads = [&](const torch::Tensor& w, const torch::Tensor& bias, const Adapter& adapter,
                         int64_t count) {
    return adapted(in.u, w, bias, adapter).view({b, t, count, d});
  };
  const auto turned = [&](torch::Tensor y, const torch::Tensor& norm) {
    if (norm.defined()) y = rms_norm(y, norm, c.rms_norm_eps);
    return rope(y.transpose(1, 2), table);
  };
  in.q = turned(heads(layer.q, layer.q_bias, layer.q_adapter, c.num_attention_heads), layer.q_norm);
  in.k = turned(heads(layer.k, layer.k_bias, layer.k_adapter, c.num_key_value_heads), layer.k_norm);
  in.v = heads(layer.v, layer.v_bias, layer.v_adapter, c.num_key_value_heads).transpose(1, 2);
  return in;
}

// Every row sees all before it -> [B, Hq, T, D].
torch::Tensor Twin::attend(const AttentionInputs& in, const torch::Tensor& mask) const {
  const int64_t b = in.q.size(0), t = in.q.size(2), d = config_.head_dim;
  const int64_t hq = in.q.size(1), hkv = in.k.size(1), group = hq / hkv;
  const double scale = 1.0 / std::sqrt(static_cast<double>(d));
  // The query heads of a group stand one after another over their one K: [B*Hkv, group*T, D].
  const auto q = in.q.reshape({b * hkv, group * t, d});
  auto scores = torch::bmm(q, in.k.reshape({b * hkv, t, d}).transpose(1, 2));
  auto weights = torch::softmax(scores.view({b * hkv, group, t, t}) * scale + mask, -1);
  auto out = torch::bmm(weights.view({b * hkv, group * t, t}), in.v.reshape({b * hkv, t, d}));
  return out.view({b, hq, t, d});
}

torch::Tensor Twin::hidden(const torch::Tensor& tokens, AttentionHook* hook) const {
  const auto& c = config_;
  const int64_t b = tokens.size(0), t = tokens.size(1);
  const RopeTable table = c.rope_inv_freq.empty() ? rope_table(t, c.head_dim, c.rope_theta)
                                                  : rope_table(t, c.rope_inv_freq);
  const torch::Tensor mask = hook ? torch::Tensor() : causal_mask(t);
  auto x = torch::embedding(embed_, tokens);  // [B, T, E]
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    const TwinLayer& layer = layers_[static_cast<size_t>(l)];
    const AttentionInputs in = project(l, x, table);
    const auto out = hook ? hook->attend(in) : attend(in, mask);
    const auto a = out.transpose(1, 2).reshape({b, t, c.num_attention_heads * c.head_dim});
    x = x + adapted(a, layer.o, layer.o_bias, layer.o_adapter);
    const auto m = rms_norm(x, layer.post_norm, c.rms_norm_eps);
    x = x +
        torch::linear(swiglu(torch::linear(m, layer.gate), torch::linear(m, layer.up)), layer.down);
  }
  return rms_norm(x, norm_, c.rms_norm_eps);
}

torch::Tensor Twin::logits(const torch::Tensor& hidden) const {
  return torch::linear(hidden, head_.defined() ? head_ : embed_);
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

Expected<Twin> Twin::load(const std::filesystem::path& path) {
  TRY(const auto reader, CheckpointReader::open(path.string()));
  Twin twin(TwinConfig::of(reader.config()));
  for (auto& [name, tensor] : twin.named_) {
    TRY_STATUS(reader.read(name, tensor.sizes().vec(), tensor.data_ptr<float>()));
    tensor.requires_grad_(true);
  }
  return twin;
}

}  // namespace coppice::train
