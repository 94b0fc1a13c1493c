// What a decision depends on, kind by kind, and what a fresh gate does.
#include "train/gate_net.h"

#include <cmath>

#include <gtest/gtest.h>

#include "model/rope_scaling.h"
#include "train/gated_pass.h"
#include "train/twin.h"

namespace coppice::train {
namespace {

TwinConfig small_twin() {
  TwinConfig c;
  c.vocab_size = 60;
  c.hidden_size = 32;
  c.num_hidden_layers = 3;
  c.head_dim = 8;
  c.intermediate_size = 48;
  return c;
}

GateHeader header_for(const TwinConfig& c, GateKind kind) {
  GateHeader h;
  h.kind = kind;
  h.hidden_size = static_cast<int32_t>(c.hidden_size);
  h.num_hidden_layers = static_cast<int32_t>(c.num_hidden_layers);
  h.num_key_value_heads = static_cast<int32_t>(c.num_key_value_heads);
  if (kind == GateKind::kPoint) return h;
  h.heads = 2;
  h.head_dim = 16;
  if (kind == GateKind::kGlobal) return h;
  h.reach = 6;
  h.rope_theta = c.rope_theta;
  return h;
}

// A gate that decides one way here and another there.
GateNet loud_gate(const GateHeader& header) {
  GateNet net(header, 5);
  torch::NoGradGuard no_grad;
  torch::manual_seed(6);
  for (auto [name, tensor] : net.parameters()) tensor.normal_(0.0, 0.4);
  return net;
}

torch::Tensor decisions(const Twin& twin, const GateNet& net, const torch::Tensor& tokens) {
  torch::NoGradGuard no_grad;
  GatedPass pass(net, {}, torch::tensor({tokens.size(1)}), torch::zeros({1}));
  twin.hidden(tokens, &pass);
  return pass.logits();
}

class GateKinds : public testing::TestWithParam<GateKind> {};

// Changing token k leaves every logit before it, in every layer, bit for bit. The global gate must
// fail the same question: it is the canary.
TEST_P(GateKinds, EarlierDecisionsStayUnlessTheKindLooksAhead) {
  const Twin twin(small_twin(), 3);
  const GateNet net = loud_gate(header_for(twin.config(), GetParam()));
  const auto tokens = torch::arange(40).mul(7).remainder(60).unsqueeze(0);
  const auto before = decisions(twin, net, tokens);
  EXPECT_GT((before > 0).sum().item<int64_t>(), 10);
  EXPECT_GT((before < 0).sum().item<int64_t>(), 10);
  for (const int64_t k : {int64_t{1}, int64_t{17}, int64_t{39}}) {
    auto changed = tokens.clone();
    changed[0][k] = (tokens[0][k].item<int64_t>() + 1) % 60;
    const auto after = decisions(twin, net, changed);
    const bool same = torch::equal(before.slice(3, 0, k), after.slice(3, 0, k));
    EXPECT_EQ(same, GetParam() != GateKind::kGlobal) << k;
    EXPECT_FALSE(torch::equal(before.select(3, k), after.select(3, k))) << k;
  }
}

TEST_P(GateKinds, AFreshGateKeepsAllAndChangesNothing) {
  const Twin twin(small_twin(), 3);
  const GateNet net(header_for(twin.config(), GetParam()), 1);
  torch::NoGradGuard no_grad;
  const auto tokens = torch::arange(50).remainder(60).unsqueeze(0);
  GatedPass pass(net, {}, torch::tensor({int64_t{50}}), torch::zeros({1}));
  const auto gated = twin.hidden(tokens, &pass);
  EXPECT_TRUE(torch::equal(pass.logits(), torch::full_like(pass.logits(), kGateBias)));
  EXPECT_LE((gated - twin.hidden(tokens)).abs().max().item<float>(), 1e-5f);
}

INSTANTIATE_TEST_SUITE_P(All, GateKinds,
                         testing::Values(GateKind::kPoint, GateKind::kCausal, GateKind::kGlobal),
                         [](const auto& kind) {
                           return std::string(model::gate_kind_name(kind.param));
                         });

// The causal aggregate, token by token in double.
TEST(GateNet, ReachesBackAsFarAsItSays) {
  const GateHeader header = header_for(small_twin(), GateKind::kCausal);
  const GateNet net = loud_gate(header);
  torch::NoGradGuard no_grad;
  const int64_t tokens = 20, layer = 1, dim = header.head_dim;
  torch::manual_seed(8);
  const auto u = torch::randn({1, tokens, header.hidden_size});
  const auto got = net.logits(layer, u, torch::tensor({tokens}))[0];  // [Hkv, T]
  const auto parameter = [&](const char* name) {
    return net.parameter(layer, name).to(torch::kFloat64);
  };
  const auto wide = u[0].to(torch::kFloat64);
  const auto inv_freq = model::rope_inverse_frequencies(header.rope_theta, 16, {});
  const auto turned = [&](const torch::Tensor& x, int64_t position) {
    auto out = x.clone();
    for (int64_t i = 0; i < dim / 2; ++i) {
      const double angle = static_cast<double>(position) * inv_freq[static_cast<size_t>(i)];
      out[i] = x[i] * std::cos(angle) - x[i + dim / 2] * std::sin(angle);
      out[i + dim / 2] = x[i + dim / 2] * std::cos(angle) + x[i] * std::sin(angle);
    }
    return out;
  };
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<torch::Tensor> parts;
    for (int64_t h = 0; h < header.heads; ++h) {
      const auto head = [&](const char* name, int64_t j) {
        return torch::mv(parameter(name), wide[j]).slice(0, h * dim, (h + 1) * dim);
      };
      std::vector<torch::Tensor> scores, values;
      for (int64_t j = std::max<int64_t>(0, t - header.reach + 1); j <= t; ++j) {
        scores.push_back(turned(head("wq", t), t).dot(turned(head("wk", j), j)) / std::sqrt(16.0));
        values.push_back(head("wv", j));
      }
      const auto weights = torch::softmax(torch::stack(scores), 0);
      parts.push_back(torch::mv(torch::stack(values, 1), weights));
    }
    const auto z = torch::mv(parameter("wo"), torch::cat(parts)) +
                   torch::mv(parameter("ws"), wide[t]) + parameter("b");
    EXPECT_LE((got.select(1, t) - z).abs().max().item<double>(), 1e-4) << t;
  }
}

TEST(GatedPass, ShiftsMoveTheThresholdOfTheirSequence) {
  const Twin twin(small_twin(), 3);
  const GateNet net = loud_gate(header_for(twin.config(), GateKind::kPoint));
  torch::NoGradGuard no_grad;
  const auto tokens = torch::arange(30).remainder(60).unsqueeze(0).expand({3, 30});
  GatedPass pass(net, {}, torch::tensor({30, 30, 30}), torch::tensor({-1.0f, 0.0f, 1.0f}));
  twin.hidden(tokens, &pass);
  // Layer 0's inputs are equal: only the shift makes a difference there.
  const auto z = pass.logits().select(1, 0), kept = pass.kept().select(1, 0);
  EXPECT_TRUE(torch::equal(z[0], z[2]));
  EXPECT_TRUE(torch::equal(kept[0].eq(1), z[0].ge(1)));
  EXPECT_TRUE(torch::equal(kept[2].eq(1), z[2].ge(-1)));
  EXPECT_LT(kept[0].sum().item<float>(), kept[2].sum().item<float>());
}

TEST(GatedPass, NoiseComesFromItsGeneratorAlone) {
  const Twin twin(small_twin(), 3);
  const GateNet net = loud_gate(header_for(twin.config(), GateKind::kPoint));
  torch::NoGradGuard no_grad;
  const auto tokens = torch::arange(30).remainder(60).unsqueeze(0);
  const auto kept = [&](uint64_t seed) {
    GateMask mask;
    mask.noise = 1.0;
    mask.generator = at::detail::createCPUGenerator(seed);
    GatedPass pass(net, mask, torch::tensor({int64_t{30}}), torch::zeros({1}));
    twin.hidden(tokens, &pass);
    return pass.probabilities();
  };
  EXPECT_TRUE(torch::equal(kept(1), kept(1)));
  EXPECT_FALSE(torch::equal(kept(1), kept(2)));
}

}  // namespace
}  // namespace coppice::train
