#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace coppice::engine {
namespace {

std::vector<float> random_logits(uint32_t seed, size_t vocab, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

// The textbook: the whole distribution as (token, probability), cut by cut.
std::map<TokenId, double> reference(const Sampling& s, const std::vector<float>& logits) {
  std::vector<std::pair<double, TokenId>> order;
  for (size_t i = 0; i < logits.size(); ++i) {
    order.emplace_back(static_cast<double>(logits[i]) / s.temperature, static_cast<TokenId>(i));
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  if (s.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(s.top_k)));
  const auto normalise = [](std::vector<std::pair<double, TokenId>>& p) {
    const double sum = std::accumulate(p.begin(), p.end(), 0.0,
                                       [](double t, const auto& x) { return t + x.first; });
    for (auto& x : p) x.first /= sum;
  };
  const double most = order.front().first;
  for (auto& x : order) x.first = std::exp(x.first - most);
  normalise(order);
  double sum = 0.0;
  size_t kept = 0;
  while (kept < order.size() && (kept == 0 || sum < s.top_p)) sum += order[kept++].first;
  if (s.top_p < 1.0) order.resize(kept);
  const double least = s.min_p * order.front().first;
  order.erase(std::remove_if(order.begin() + 1, order.end(),
                             [&](const auto& x) { return x.first < least; }),
              order.end());
  normalise(order);
  std::map<TokenId, double> out;
  for (const auto& [p, token] : order) out[token] = p;
  return out;
}

TokenId drawn(const Sampling& sampling, uint64_t seed, int32_t choice, int64_t index,
              const std::vector<float>& logits, const std::vector<TokenId>& banned,
              SamplerScratch& scratch) {
  return sample(sampling, seed, choice, index, logits, banned, scratch).value();
}

// Draws often and compares frequencies with the textbook's probabilities, five sigmas wide.
void expect_distribution(const Sampling& sampling, const std::vector<float>& logits) {
  constexpr int kDraws = 20000;
  const auto expected = reference(sampling, logits);
  SamplerScratch scratch;
  std::map<TokenId, int> seen;
  for (int i = 0; i < kDraws; ++i) ++seen[drawn(sampling, 7, 0, i, logits, {}, scratch)];
  for (const auto& [token, count] : seen) {
    ASSERT_TRUE(expected.contains(token)) << "drew " << token << ", which the cuts remove";
  }
  for (const auto& [token, p] : expected) {
    const double sigma = std::sqrt(kDraws * p * (1.0 - p));
    EXPECT_NEAR(seen[token], kDraws * p, 5.0 * sigma + 1.0) << "token " << token;
  }
}

TEST(Sampler, GreedyTakesTheLikeliestAndTiesGoToTheLowestId) {
  SamplerScratch scratch;
  const Sampling greedy;
  EXPECT_EQ(drawn(greedy, 1, 0, 0, std::vector<float>{0, 3, 1, 3}, {}, scratch), 1);
  EXPECT_EQ(drawn(greedy, 1, 0, 0, std::vector<float>{-5, -5, -5}, {}, scratch), 0);
}

TEST(Sampler, GreedyIgnoresNaN) {
  SamplerScratch scratch;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(drawn(Sampling{}, 1, 0, 0, std::vector<float>{nan, 1, 2, nan}, {}, scratch), 2);
  Sampling hot;
  hot.temperature = 5.0;
  for (int i = 0; i < 200; ++i) {
    const TokenId token = drawn(hot, 1, 0, i, std::vector<float>{nan, 1, 2, nan}, {}, scratch);
    EXPECT_TRUE(token == 1 || token == 2);
  }
}

TEST(Sampler, NothingIsDrawnFromABrokenRow) {
  SamplerScratch scratch;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const double temperature : {0.0, 1.0}) {
    Sampling s;
    s.temperature = temperature;
    for (const auto& row : {std::vector<float>{nan, nan}, std::vector<float>{0, inf},
                            std::vector<float>{-inf, nan}}) {
      EXPECT_EQ(sample(s, 1, 0, 0, row, {}, scratch), std::nullopt);
    }
  }
}

TEST(Sampler, AFullBanLeavesTheRowsOwnOrder) {
  SamplerScratch scratch;
  EXPECT_EQ(drawn(Sampling{}, 1, 0, 0, {1, 2}, {0, 1}, scratch), 0);
}

TEST(Sampler, DistributionsAreTheTextbooks) {
  const std::vector<float> logits = random_logits(3, 24, 1.5f);
  Sampling s;
  for (const double temperature : {0.3, 1.0, 2.5}) {
    s = Sampling{};
    s.temperature = temperature;
    expect_distribution(s, logits);
    s.top_k = 5;
    expect_distribution(s, logits);
    s.top_p = 0.7;
    expect_distribution(s, logits);
    s = Sampling{};
    s.temperature = temperature;
    s.top_p = 0.8;
    expect_distribution(s, logits);
    s = Sampling{};
    s.temperature = temperature;
    s.min_p = 0.2;
    expect_distribution(s, logits);
    s.top_p = 0.9;
    s.top_k = 10;
    expect_distribution(s, logits);
  }
}

// The first few hundred candidates do not hold the mass here, so sorting goes on in rounds.
TEST(Sampler, TopPOverAFlatVocabularyKeepsExactlyTheMass) {
  const std::vector<float> logits = random_logits(5, 3000, 0.3f);
  Sampling s;
  s.temperature = 1.0;
  s.top_p = 0.9;
  const auto expected = reference(s, logits);
  ASSERT_GT(expected.size(), 2000u);
  // u is uniform and candidates are laid out by likelihood, so the draws reach the whole range.
  SamplerScratch scratch;
  double least = 1.0;
  for (int i = 0; i < 2000; ++i) {
    const TokenId token = drawn(s, 11, 0, i, logits, {}, scratch);
    ASSERT_TRUE(expected.contains(token));
    least = std::min(least, expected.at(token));
  }
  double below = 0.0;
  for (const auto& [token, p] : expected) below += p < least ? p : 0.0;
  EXPECT_LT(below, 0.01);
}

TEST(Sampler, TopKOneIsGreedyAtAnyTemperature) {
  const std::vector<float> logits = random_logits(9, 50, 1.0f);
  SamplerScratch scratch;
  Sampling s;
  const TokenId greedy = drawn(s, 1, 0, 0, logits, {}, scratch);
  s.temperature = 50.0;
  s.top_k = 1;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(drawn(s, 1, 0, i, logits, {}, scratch), greedy);
}

TEST(Sampler, ADrawDependsOnSeedChoiceAndIndexAlone) {
  const std::vector<float> logits = random_logits(13, 200, 1.0f);
  Sampling s;
  s.temperature = 1.0;
  SamplerScratch one, two;
  std::vector<TokenId> forward, backward;
  for (int i = 0; i < 64; ++i) forward.push_back(drawn(s, 42, 1, i, logits, {}, one));
  for (int i = 63; i >= 0; --i) backward.push_back(drawn(s, 42, 1, i, logits, {}, two));
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  std::vector<TokenId> other_seed, other_choice;
  for (int i = 0; i < 64; ++i) {
    other_seed.push_back(drawn(s, 43, 1, i, logits, {}, one));
    other_choice.push_back(drawn(s, 42, 2, i, logits, {}, one));
  }
  EXPECT_NE(forward, other_seed);
  EXPECT_NE(forward, other_choice);
}

TEST(Sampler, UniformIsUniform) {
  constexpr int kBins = 20, kDraws = 100000;
  std::vector<int> bins(kBins);
  for (int i = 0; i < kDraws; ++i) {
    const double u = uniform(static_cast<uint64_t>(i % 7), static_cast<uint64_t>(i % 3),
                             static_cast<uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<size_t>(u * kBins)];
  }
  double chi_square = 0.0;
  for (const int n : bins) chi_square += std::pow(n - kDraws / kBins, 2) / (kDraws / kBins);
  EXPECT_LT(chi_square, 50.0);  // 19 degrees of freedom: p < 1e-4
}

TEST(Sampler, BannedTokensAreNeverDrawn) {
  const std::vector<float> logits{0, 10, 9, 1};
  const std::vector<TokenId> banned{1, 2, 99};
  SamplerScratch scratch;
  EXPECT_EQ(drawn(Sampling{}, 1, 0, 0, logits, banned, scratch), 3);
  Sampling s;
  s.temperature = 10.0;
  std::set<TokenId> seen;
  for (int i = 0; i < 500; ++i) seen.insert(drawn(s, 1, 0, i, logits, banned, scratch));
  EXPECT_EQ(seen, (std::set<TokenId>{0, 3}));
}

TEST(Sampler, LogprobsAreTheLogSoftmax) {
  const std::vector<float> logits{1.0f, 3.0f, 2.0f, 3.0f};
  double total = 0.0;
  for (const float l : logits) total += std::exp(static_cast<double>(l));
  SamplerScratch scratch;
  const TokenLogprob got = token_logprob(logits, 2, 3, scratch);
  EXPECT_EQ(got.token, 2);
  EXPECT_NEAR(got.logprob, 2.0 - std::log(total), 1e-12);
  ASSERT_EQ(got.top.size(), 3u);
  EXPECT_EQ(got.top[0].first, 1);
  EXPECT_EQ(got.top[1].first, 3);
  EXPECT_EQ(got.top[2].first, 2);
  EXPECT_NEAR(got.top[0].second, 3.0 - std::log(total), 1e-12);
  EXPECT_EQ(token_logprob(logits, 0, 20, scratch).top.size(), 4u);
}

}  // namespace
}  // namespace coppice::engine
