// The visibility rule against a naive loop, and every gradient against differences of values.
#include "train/masked_attention.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

namespace coppice::train {
namespace {

using torch::Tensor;

struct Case {
  int64_t b = 2, hq = 4, hkv = 2, t = 150, d = 8;  // two blocks of rows
  Visibility visibility{5, 3};
};

struct Inputs {
  Tensor q, k, v;
};

Inputs draw(const Case& c, uint64_t seed) {
  torch::manual_seed(seed);
  return {torch::randn({c.b, c.hq, c.t, c.d}), torch::randn({c.b, c.hkv, c.t, c.d}),
          torch::randn({c.b, c.hkv, c.t, c.d})};
}

// In double, key by key. Drops where keep is 0; a coefficient between counts as it is.
Tensor naive(const Inputs& in, const Tensor& keep, const Visibility& rule) {
  const int64_t group = in.q.size(1) / in.k.size(1);
  const auto q = in.q.to(torch::kFloat64), k = in.k.to(torch::kFloat64);
  const auto v = in.v.to(torch::kFloat64);
  auto out = torch::zeros_like(q);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(3)));
  for (int64_t b = 0; b < q.size(0); ++b) {
    for (int64_t h = 0; h < q.size(1); ++h) {
      const int64_t g = h / group;
      const auto scores = torch::mm(q[b][h], k[b][g].t()).mul(scale);
      auto c = torch::ones({q.size(2), q.size(2)}, torch::kFloat64);
      for (int64_t t = 0; t < q.size(2); ++t) {
        for (int64_t j = 0; j < q.size(2); ++j) {
          if (j > t) c[t][j] = 0;
          if (j <= t && j >= rule.sinks && t - j >= rule.window)
            c[t][j] = keep[b][g][j].item<double>();
        }
      }
      const auto e = scores.exp() * c;
      out[b][h] = torch::mm(e / e.sum(1, true), v[b][g]);
    }
  }
  return out;
}

Tensor hard_keep(const Case& c) {
  return torch::rand({c.b, c.hkv, c.t}).gt(0.5).to(torch::kFloat32);
}

TEST(MaskedAttention, SeesWhatTheRuleSays) {
  Case c;
  c.b = 1;
  c.hq = 2;
  c.t = 140;
  const Inputs in = draw(c, 1);
  for (const auto& keep : {hard_keep(c), torch::rand({c.b, c.hkv, c.t}) + 1e-3,
                           torch::ones({c.b, c.hkv, c.t}), torch::zeros({c.b, c.hkv, c.t})}) {
    const auto got = masked_attention(in.q, in.k, in.v, keep, c.visibility);
    EXPECT_LE((got - naive(in, keep, c.visibility)).abs().max().item<double>(), 2e-5);
  }
  const auto all = masked_attention(in.q, in.k, in.v, {}, c.visibility);
  const auto ones =
      masked_attention(in.q, in.k, in.v, torch::ones({c.b, c.hkv, c.t}), c.visibility);
  EXPECT_TRUE(torch::equal(all, ones));
}

// A dropped key that would take nearly the whole row must not leave rounding noise behind.
TEST(MaskedAttention, ADroppedGiantLeavesTheOthersExact) {
  Case c;
  c.b = 1, c.hq = 1, c.hkv = 1, c.t = 40;
  Inputs in = draw(c, 2);
  in.k[0][0][10] = in.q[0][0][39] * 60;
  auto keep = torch::ones({1, 1, c.t});
  keep[0][0][10] = 0;
  const auto got = masked_attention(in.q, in.k, in.v, keep, c.visibility)[0][0][39];
  EXPECT_LE((got - naive(in, keep, c.visibility)[0][0][39]).abs().max().item<double>(), 1e-5);
}

// Central differences of sum(out * w) in every entry of `x` that is asked for.
double worst_difference(const std::function<Tensor()>& out, const Tensor& w, Tensor x,
                        const Tensor& gradient, int64_t every) {
  torch::NoGradGuard no_grad;
  double worst = 0;
  const auto flat = x.view({-1});
  constexpr double kStep = 1e-2;
  for (int64_t i = 0; i < flat.numel(); i += every) {
    const float value = flat[i].item<float>();
    const auto at = [&](double y) {
      flat[i] = y;
      return (out().to(torch::kFloat64) * w).sum().item<double>();
    };
    const double slope = (at(value + kStep) - at(value - kStep)) / (2 * kStep);
    flat[i] = value;
    worst = std::max(worst, std::abs(slope - gradient.view({-1})[i].item<double>()));
  }
  return worst;
}

TEST(MaskedAttention, GradientsAreTheSlopes) {
  Case c;
  Inputs in = draw(c, 3);
  for (const bool hard : {false, true}) {
    auto keep = hard ? hard_keep(c) : torch::rand({c.b, c.hkv, c.t}) * 0.9 + 0.05;
    for (Tensor* x : {&in.q, &in.k, &in.v}) *x = x->detach().requires_grad_(true);
    keep.requires_grad_(!hard);
    const auto out = [&] { return masked_attention(in.q, in.k, in.v, keep, c.visibility); };
    const auto w = torch::randn({c.b, c.hq, c.t, c.d}, torch::kFloat64);
    (out() * w).sum().backward();
    EXPECT_LE(worst_difference(out, w, in.q.detach(), in.q.grad(), 61), 5e-3);
    EXPECT_LE(worst_difference(out, w, in.k.detach(), in.k.grad(), 31), 5e-3);
    EXPECT_LE(worst_difference(out, w, in.v.detach(), in.v.grad(), 31), 5e-3);
    if (!hard) {
      EXPECT_LE(worst_difference(out, w, keep.detach(), keep.grad(), 7), 2e-2);
      EXPECT_GT(keep.grad().abs().max().item<float>(), 0.1f);
    }
  }
}

// The straight-through form: a dropped key's gradient is what letting it in again would change, a
// kept one's the slope at 1; a key that every row protects has none.
TEST(MaskedAttention, ADroppedKeysGradientIsWhatItsReturnWouldChange) {
  const Case c;
  const Inputs in = draw(c, 4);
  const auto hard = hard_keep(c);
  const auto soft = torch::full_like(hard, 0.5).requires_grad_(true);
  const auto w = torch::randn({c.b, c.hq, c.t, c.d}, torch::kFloat64);
  const auto value = [&](const Tensor& keep) {
    torch::NoGradGuard no_grad;
    return (masked_attention(in.q, in.k, in.v, keep, c.visibility).to(torch::kFloat64) * w)
        .sum()
        .item<double>();
  };
  (masked_attention(in.q, in.k, in.v, straight_through(soft, hard), c.visibility) * w)
      .sum()
      .backward();
  const double now = value(hard);
  int dropped = 0;
  for (int64_t j = 0; j < c.t; j += 3) {
    auto other = hard.clone();
    const bool was_kept = hard[1][1][j].item<float>() == 1;
    constexpr double kStep = 1e-2;
    other[1][1][j] = was_kept ? 1 + kStep : 1;
    const double change = (value(other) - now) / (was_kept ? kStep : 1);
    const double slope = soft.grad()[1][1][j].item<double>();
    EXPECT_NEAR(slope, change, 2e-2 * std::max(1.0, std::abs(change))) << j;
    dropped += was_kept ? 0 : 1;
    if (j < c.visibility.sinks || j + c.visibility.window >= c.t) {
      EXPECT_EQ(slope, 0) << j;
    }
  }
  EXPECT_GT(dropped, 10);
}

TEST(MaskedAttention, StraightThroughHasOneValueAndTheOthersGradient) {
  const auto soft = torch::tensor({0.9f, 0.2f, 1e-8f}).requires_grad_(true);
  const auto hard = torch::tensor({1.0f, 0.0f, 0.0f});
  const auto out = straight_through(soft, hard);
  EXPECT_TRUE(torch::equal(out, hard));
  (out * torch::tensor({2.0f, 3.0f, 4.0f})).sum().backward();
  EXPECT_TRUE(torch::equal(soft.grad(), torch::tensor({2.0f, 3.0f, 4.0f})));
}

}  // namespace
}  // namespace coppice::train
