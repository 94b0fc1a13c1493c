// Replay scores against attention written out, and the regression on them.
#include "train/kvzip.h"

#include <cmath>

#include <gtest/gtest.h>

#include "train/adamw.h"

namespace coppice::train {
namespace {

// Writes out the attention weights of one layer.
class Witness : public AttentionHook {
 public:
  torch::Tensor attend(const AttentionInputs& in) override {
    const int64_t group = in.q.size(1) / in.k.size(1), t = in.q.size(2);
    const auto k = in.k.repeat_interleave(group, 1), v = in.v.repeat_interleave(group, 1);
    auto scores = torch::matmul(in.q, k.transpose(2, 3)) / std::sqrt(double(in.q.size(3)));
    scores = scores.masked_fill(torch::ones({t, t}).triu(1).to(torch::kBool), -INFINITY);
    weights.push_back(torch::softmax(scores, -1));
    inputs.push_back(in);
    return torch::matmul(weights.back(), v);
  }
  std::vector<torch::Tensor> weights;  // [B, Hq, T, T]
  std::vector<AttentionInputs> inputs;
};

struct Replay {
  Twin twin;
  GateBatch batch;
};

// Two sequences of a small twin, of different lengths, with more rows than one block has.
Replay make_replay() {
  TwinConfig c;
  c.vocab_size = 60;
  c.hidden_size = 32;
  c.num_hidden_layers = 2;
  c.head_dim = 8;
  c.intermediate_size = 48;
  Twin twin(c, 3);
  twin.freeze();
  std::vector<GateSample> samples(2);
  for (size_t b = 0; b < 2; ++b) {
    samples[b].prompt = b == 0 ? 140 : 60;
    for (int copy = 0; copy < 2; ++copy) {
      for (int i = 0; i < samples[b].prompt; ++i) samples[b].ids.push_back((i * 7 + i * i) % 60);
    }
    samples[b].answers = {{samples[b].prompt, 2 * samples[b].prompt}};
  }
  return {twin, make_gate_batch(samples, 1, 0)};
}

TEST(ReplayScores, AreTheMostAttentionOfTheSecondCopy) {
  const Replay replay = make_replay();
  torch::NoGradGuard no_grad;
  Witness witness;
  replay.twin.hidden(replay.batch.inputs, &witness);
  for (const bool norms : {false, true}) {
    ReplayScores scores(replay.twin, replay.batch.prompts, replay.batch.lengths, norms);
    replay.twin.hidden(replay.batch.inputs, &scores);
    for (int64_t l = 0; l < 2; ++l) {
      const AttentionInputs& in = witness.inputs[static_cast<size_t>(l)];
      const auto& o = replay.twin.layers()[static_cast<size_t>(l)].o;
      for (int64_t b = 0; b < 2; ++b) {
        const int64_t prompt = replay.batch.prompts[b].item<int64_t>();
        const int64_t length = replay.batch.lengths[b].item<int64_t>();
        for (int64_t h = 0; h < 2; ++h) {
          for (const int64_t j : {int64_t{0}, int64_t{5}, prompt - 1}) {
            double most = 0;
            for (int64_t head = 2 * h; head < 2 * h + 2; ++head) {
              auto seen = witness.weights[static_cast<size_t>(l)][b][head].select(1, j);
              if (norms) {
                const auto out = torch::mv(o.slice(1, head * 8, head * 8 + 8), in.v[b][h][j]);
                seen = seen * out.norm() / in.x[b].norm(2, -1);
              }
              most = std::max(most, seen.slice(0, prompt, length).max().item<double>());
            }
            EXPECT_NEAR(scores.scores(l)[b][h][j].item<double>(), most, 1e-5)
                << norms << " " << l << " " << b << " " << h << " " << j;
          }
        }
      }
    }
  }
}

TEST(ReplayLoss, IsLearnedByAPointGate) {
  const Replay replay = make_replay();
  ReplayScores scores(replay.twin, replay.batch.prompts, replay.batch.lengths, false);
  {
    torch::NoGradGuard no_grad;
    replay.twin.hidden(replay.batch.inputs, &scores);
  }
  GateHeader header;
  header.hidden_size = 32;
  header.num_hidden_layers = 2;
  header.num_key_value_heads = 2;
  const GateNet net(header, 1);
  AdamW adam(net.parameters(), {.weight_decay = 0});
  // Centred: what is left is the variance of the log scores.
  const double first = replay_loss(net, scores, replay.batch, 4, true).item<double>();
  double variance = 0;
  for (int64_t l = 0; l < 2; ++l) {
    std::vector<torch::Tensor> logs;
    for (int64_t b = 0; b < 2; ++b) {
      const int64_t prompt = replay.batch.prompts[b].item<int64_t>();
      logs.push_back(scores.scores(l)[b].slice(1, 4, prompt).clamp_min(1e-6).log());
    }
    variance += torch::cat(logs, 1).var(1, false).mean().item<double>() / 2;
  }
  EXPECT_NEAR(first, variance, 1e-4);
  double last = 0;
  for (int i = 0; i < 150; ++i) {
    const auto loss = replay_loss(net, scores, replay.batch, 4, false);
    loss.backward();
    adam.step(1e-2);
    last = loss.item<double>();
  }
  EXPECT_LT(last, 0.6 * first);
}

}  // namespace
}  // namespace coppice::train
