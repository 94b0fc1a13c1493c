#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/splitmix.h"

namespace coppice::engine {
namespace {

using Candidate = SamplerScratch::Candidate;
constexpr float kNever = -std::numeric_limits<float>::infinity();

float finite_or_never(float logit) { return std::isnan(logit) ? kNever : logit; }

bool likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

TokenId argmax(std::span<const float> logits) {
  TokenId best = 0;
  float most = kNever;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] > most) {
      most = logits[i];
      best = static_cast<TokenId>(i);
    }
  }
  return best;
}

// The draw over the whole vocabulary, in order of id.
TokenId draw_uncut(std::span<const float> logits, float most, double temperature, double u,
                   std::vector<double>& weights) {
  weights.resize(logits.size());
  double total = 0.0;
  TokenId last = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = finite_or_never(logits[i]);
    weights[i] = std::exp((static_cast<double>(logit) - most) / temperature);
    total += weights[i];
    if (weights[i] > 0.0) last = static_cast<TokenId>(i);
  }
  double left = u * total;
  for (size_t i = 0; i < logits.size(); ++i) {
    left -= weights[i];
    if (left < 0.0) return static_cast<TokenId>(i);
  }
  return last;  // rounding left a sliver above the sum
}

void gather_candidates(std::span<const float> logits, std::vector<Candidate>& out) {
  out.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    out[i] = {finite_or_never(logits[i]), static_cast<TokenId>(i)};
  }
}

// Sorts at least the first `count` candidates into place, reusing what is sorted already.
void sort_first(std::vector<Candidate>& candidates, size_t sorted, size_t count) {
  const auto begin = candidates.begin() + static_cast<std::ptrdiff_t>(sorted);
  const auto end = candidates.begin() + static_cast<std::ptrdiff_t>(count);
  if (end != candidates.end()) std::nth_element(begin, end, candidates.end(), likelier);
  std::sort(begin, end, likelier);
}

// How many of the likeliest candidates stay; they are sorted on return, with weights beside.
size_t cut(const Sampling& sampling, double most, std::vector<Candidate>& candidates,
           std::vector<double>& weights) {
  const auto weight = [&](const Candidate& c) {
    return std::exp((static_cast<double>(c.logit) - most) / sampling.temperature);
  };
  const size_t vocabulary = candidates.size();
  const bool cut_k = sampling.top_k > 0 && static_cast<size_t>(sampling.top_k) < vocabulary;
  const size_t limit = cut_k ? static_cast<size_t>(sampling.top_k) : vocabulary;
  double total = 0.0;
  size_t sorted = 0;
  if (cut_k) {
    sort_first(candidates, 0, limit);
    sorted = limit;
    for (size_t i = 0; i < limit; ++i) total += weight(candidates[i]);
  } else {
    for (const Candidate& c : candidates) total += weight(c);
  }
  const double enough =
      sampling.top_p < 1.0 ? sampling.top_p * total : std::numeric_limits<double>::infinity();
  weights.clear();
  double sum = 0.0;
  for (size_t i = 0; i < limit; ++i) {
    if (i == sorted) {  // nearly always the first few hundred hold the mass
      const size_t next = std::min(limit, std::max<size_t>(256, sorted * 8));
      sort_first(candidates, sorted, next);
      sorted = next;
    }
    const double w = weight(candidates[i]);
    if (i > 0 && (w < sampling.min_p || w == 0.0)) break;
    weights.push_back(w);
    sum += w;
    if (sum >= enough) break;
  }
  return weights.size();
}

TokenId draw_cut(const Sampling& sampling, std::span<const float> logits, float most, double u,
                 SamplerScratch& scratch) {
  gather_candidates(logits, scratch.candidates);
  const size_t kept = cut(sampling, most, scratch.candidates, scratch.weights);
  double total = 0.0;
  for (size_t i = 0; i < kept; ++i) total += scratch.weights[i];
  double left = u * total;
  for (size_t i = 0; i < kept; ++i) {
    left -= scratch.weights[i];
    if (left < 0.0) return scratch.candidates[i].token;
  }
  return scratch.candidates[kept - 1].token;
}

}  // namespace

uint64_t derived_seed(uint64_t engine_seed, uint64_t number) {
  return splitmix(splitmix(engine_seed + kGoldenGamma) + kGoldenGamma * number);
}

double uniform(uint64_t seed, uint64_t choice, uint64_t index) {
  uint64_t x = splitmix(seed + kGoldenGamma);
  x = splitmix(x ^ (choice + kGoldenGamma));
  x = splitmix(x + kGoldenGamma * (index + 1));
  return static_cast<double>(x >> 11) * 0x1.0p-53;
}

std::optional<TokenId> sample(const Sampling& sampling, uint64_t seed, int32_t choice,
                              int64_t index, std::span<const float> logits,
                              std::span<const TokenId> banned, SamplerScratch& scratch) {
  TokenId likeliest = argmax(logits);
  if (!std::isfinite(logits[static_cast<size_t>(likeliest)])) return std::nullopt;
  if (!banned.empty()) {
    scratch.logits.assign(logits.begin(), logits.end());
    for (const TokenId id : banned) {
      if (id >= 0 && static_cast<size_t>(id) < logits.size()) {
        scratch.logits[static_cast<size_t>(id)] = kNever;
      }
    }
    logits = scratch.logits;
    likeliest = argmax(logits);
  }
  const float most = logits[static_cast<size_t>(likeliest)];
  if (sampling.temperature == 0.0 || most == kNever) return likeliest;
  const double u = uniform(seed, static_cast<uint64_t>(choice), static_cast<uint64_t>(index));
  if (sampling.top_k <= 0 && sampling.top_p >= 1.0 && sampling.min_p <= 0.0) {
    return draw_uncut(logits, most, sampling.temperature, u, scratch.weights);
  }
  return draw_cut(sampling, logits, most, u, scratch);
}

TokenLogprob token_logprob(std::span<const float> logits, TokenId token, int32_t top,
                           SamplerScratch& scratch) {
  const float most = logits[static_cast<size_t>(argmax(logits))];
  double total = 0.0;
  for (const float logit : logits) {
    total += std::exp(static_cast<double>(finite_or_never(logit)) - most);
  }
  const double normaliser = static_cast<double>(most) + std::log(total);
  TokenLogprob out;
  out.token = token;
  out.logprob = finite_or_never(logits[static_cast<size_t>(token)]) - normaliser;
  if (top > 0) {
    gather_candidates(logits, scratch.candidates);
    const size_t count = std::min(scratch.candidates.size(), static_cast<size_t>(top));
    sort_first(scratch.candidates, 0, count);
    for (size_t i = 0; i < count; ++i) {
      out.top.emplace_back(scratch.candidates[i].token, scratch.candidates[i].logit - normaliser);
    }
  }
  return out;
}

}  // namespace coppice::engine
