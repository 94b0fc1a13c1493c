#include "train/gate_net.h"

#include <cmath>

#include "model/rope_scaling.h"
#include "train/layers.h"

namespace coppice::train {

GateNet::GateNet(const GateHeader& header, uint64_t seed) : header_(header) {
  TORCH_CHECK(header.kind != GateKind::kBlock, "block gates are not trained");
  torch::manual_seed(seed);
  const int64_t hidden = header_.hidden_size, kv_heads = header_.num_key_value_heads;
  const int64_t inner = header_.width();
  const double fan = 1.0 / std::sqrt(static_cast<double>(hidden));
  for (int64_t l = 0; l < header_.num_hidden_layers; ++l) {
    Layer layer;
    const auto add = [&](const char* name, torch::Tensor& into, const torch::Tensor& value) {
      into = value.requires_grad_(true);
      named_.emplace_back("layers." + std::to_string(l) + "." + name, into);
    };
    add("ws", layer.ws, torch::zeros({kv_heads, hidden}));
    add("b", layer.b, torch::full({kv_heads}, kGateBias));
    if (header_.kind != GateKind::kPoint) {
      add("wq", layer.wq, torch::randn({inner, hidden}) * fan);
      add("wk", layer.wk, torch::randn({inner, hidden}) * fan);
      add("wv", layer.wv, torch::randn({inner, hidden}) * fan);
      add("wo", layer.wo, torch::zeros({kv_heads, inner}));
    }
    layers_.push_back(layer);
  }
}

const torch::Tensor& GateNet::find(std::string_view name) const {
  for (const auto& [key, tensor] : named_) {
    if (key == name) return tensor;
  }
  TORCH_CHECK(false, name, ": no such parameter");
}

const torch::Tensor& GateNet::parameter(int64_t layer, std::string_view name) const {
  return find("layers." + std::to_string(layer) + "." + std::string(name));
}

std::vector<float> GateNet::values(std::string_view name) const {
  const auto flat = find(name).detach().contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

torch::Tensor GateNet::heads(const torch::Tensor& u, const torch::Tensor& weight) const {
  return torch::linear(u, weight)
      .view({u.size(0), u.size(1), header_.heads, header_.head_dim})
      .transpose(1, 2);
}

// a_t over j in (t - reach, t] -> [B, T, r'].
torch::Tensor GateNet::aggregate_reach(const Layer& layer, const torch::Tensor& u) const {
  const int64_t b = u.size(0), t = u.size(1), reach = header_.reach;
  const RopeTable table =
      rope_table(t, model::rope_inverse_frequencies(header_.rope_theta, header_.head_dim, {}));
  // One row of keys for each of the last `reach` tokens; before the first there are none.
  const auto last = [&](const torch::Tensor& x) {
    return torch::constant_pad_nd(x, {0, 0, reach - 1, 0}).unfold(2, reach, 1);
  };
  const auto q = rope(heads(u, layer.wq), table).unsqueeze(-1);  // [B, n', T, d', 1]
  const auto k = last(rope(heads(u, layer.wk), table));          // [B, n', T, d', reach]
  const auto v = last(heads(u, layer.wv));
  auto scores = (q * k).sum(3) / std::sqrt(static_cast<double>(header_.head_dim));
  const auto position = torch::arange(t).unsqueeze(1) + torch::arange(1 - reach, 1).unsqueeze(0);
  scores = scores.masked_fill(position.lt(0), -INFINITY);  // [B, n', T, reach]
  const auto a = (torch::softmax(scores, -1).unsqueeze(3) * v).sum(-1);
  return a.transpose(1, 2).reshape({b, t, header_.heads * header_.head_dim});
}

// a_t over j in [0, prompt) for every t -> [B, T, r'].
torch::Tensor GateNet::aggregate_prompt(const Layer& layer, const torch::Tensor& u,
                                        const torch::Tensor& prompts) const {
  const int64_t b = u.size(0), t = u.size(1);
  const auto scale = 1.0 / std::sqrt(static_cast<double>(header_.head_dim));
  auto scores = torch::matmul(heads(u, layer.wq), heads(u, layer.wk).transpose(2, 3)) * scale;
  const auto beyond = torch::arange(t).unsqueeze(0).ge(prompts.unsqueeze(1));  // [B, T]
  scores = scores.masked_fill(beyond.view({b, 1, 1, t}), -INFINITY);
  const auto a = torch::matmul(torch::softmax(scores, -1), heads(u, layer.wv));
  return a.transpose(1, 2).reshape({b, t, header_.heads * header_.head_dim});
}

torch::Tensor GateNet::logits(int64_t layer, const torch::Tensor& u,
                              const torch::Tensor& prompts) const {
  const Layer& l = layers_[static_cast<size_t>(layer)];
  auto z = torch::linear(u, l.ws, l.b);  // [B, T, Hkv]
  if (header_.kind == GateKind::kCausal) {
    z = z + torch::linear(aggregate_reach(l, u), l.wo);
  } else if (header_.kind == GateKind::kGlobal) {
    z = z + torch::linear(aggregate_prompt(l, u, prompts), l.wo);
  }
  return z.transpose(1, 2);
}

}  // namespace coppice::train
