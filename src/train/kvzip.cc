#include "train/kvzip.h"

#include <algorithm>
#include <cmath>

#include "train/masked_attention.h"

namespace coppice::train {
namespace {

constexpr int64_t kReplayRows = 128;
constexpr double kLeastScore = 1e-6;

// [B, T]: 1 from first to before last.
torch::Tensor between(const torch::Tensor& first, const torch::Tensor& last, int64_t tokens) {
  const auto t = torch::arange(tokens).unsqueeze(0);
  return t.ge(first.unsqueeze(1)).logical_and_(t.lt(last.unsqueeze(1))).to(torch::kFloat32);
}

// |Wo_h v_j| of every query head [B, Hq, T].
torch::Tensor output_norms(const TwinLayer& layer, const torch::Tensor& v, int64_t query_heads) {
  const int64_t group = query_heads / v.size(1), d = v.size(3);
  std::vector<torch::Tensor> norms;
  for (int64_t h = 0; h < query_heads; ++h) {
    const auto out =
        torch::matmul(v.select(1, h / group), layer.o.slice(1, h * d, (h + 1) * d).t());
    norms.push_back(out.norm(2, -1));
  }
  return torch::stack(norms, 1);
}

}  // namespace

ReplayScores::ReplayScores(const Twin& twin, const torch::Tensor& prompts,
                           const torch::Tensor& lengths, bool value_norms)
    : twin_(twin), prompts_(prompts), lengths_(lengths), value_norms_(value_norms) {}

torch::Tensor ReplayScores::attend(const AttentionInputs& in) {
  torch::NoGradGuard no_grad;
  const int64_t b = in.q.size(0), hq = in.q.size(1), tokens = in.q.size(2), d = in.q.size(3);
  const int64_t hkv = in.k.size(1), group = hq / hkv;
  const auto k = in.k.unsqueeze(2);  // [B, Hkv, 1, T, D]
  const auto replays = between(prompts_, lengths_, tokens).view({b, 1, 1, tokens, 1});
  torch::Tensor share;  // [B, Hkv, G, 1, T]
  if (value_norms_) {
    const TwinLayer& layer = twin_.layers()[static_cast<size_t>(in.layer)];
    share = output_norms(layer, in.v, hq).view({b, hkv, group, 1, tokens});
  }
  auto scores = torch::zeros({b, hkv, tokens});
  const int64_t first = prompts_.min().item<int64_t>();
  for (int64_t begin = first; begin < tokens; begin += kReplayRows) {
    const int64_t end = std::min(begin + kReplayRows, tokens);
    const auto q = in.q.slice(2, begin, end).view({b, hkv, group, end - begin, d});
    auto s =
        torch::matmul(q, k.slice(3, 0, end).transpose(3, 4)) / std::sqrt(static_cast<double>(d));
    const auto later = torch::arange(end).unsqueeze(0).gt(torch::arange(begin, end).unsqueeze(1));
    s.masked_fill_(later, -INFINITY);
    auto weights = torch::softmax(s, -1).mul_(replays.slice(3, begin, end));
    if (value_norms_) {
      const auto rows = in.x.slice(1, begin, end).norm(2, -1).view({b, 1, 1, end - begin, 1});
      weights.mul_(share.slice(4, 0, end)).div_(rows);
    }
    auto seen = scores.slice(2, 0, end);
    seen.copy_(torch::maximum(seen, weights.amax({2, 3})));
  }
  scores_.push_back(scores);
  inputs_.push_back(in.u);
  return masked_attention(in.q, in.k, in.v, {}, {});
}

torch::Tensor replay_loss(const GateNet& net, const ReplayScores& replay, const GateBatch& batch,
                          int64_t sinks, bool centre) {
  const int64_t tokens = batch.inputs.size(1);
  const auto counted =
      between(torch::full_like(batch.prompts, sinks), batch.prompts, tokens).unsqueeze(1);
  auto total = torch::zeros({});
  for (int64_t l = 0; l < net.header().num_hidden_layers; ++l) {
    const auto wanted = replay.scores(l).clamp_min(kLeastScore).log();  // [B, Hkv, T]
    if (centre) {
      torch::NoGradGuard no_grad;
      torch::Tensor bias = net.parameter(l, "b");
      bias.copy_((wanted * counted).sum(at::IntArrayRef({0, 2})) / counted.sum());
    }
    const auto off = net.logits(l, replay.inputs(l), batch.prompts) - wanted;
    total =
        total + (off.square() * counted).sum() / (counted.sum() * net.header().num_key_value_heads);
  }
  return total / net.header().num_hidden_layers;
}

}  // namespace coppice::train
