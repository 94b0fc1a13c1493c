// What:    from a row of logits to a token: temperature, top-k, top-p, min-p, draw; logprobs.
// Owns:    a Sampler owns nothing that grows; scratch is the caller's and is reused.
// Threads: one per scratch.
// Fails:   sample: nothing, if the likeliest logit is not finite. NaN counts as minus infinity.
//
// Order of the cuts: bans, temperature, top_k, top_p over what top_k left, min_p relative to the
// likeliest. Ties go to the lowest id. The draw for the i-th token is a function of (seed, choice,
// i) alone, so a request that was set aside and resumed draws what it would have drawn.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coppice/request.h"

namespace coppice::engine {

struct SamplerScratch {
  struct Candidate {
    float logit;
    TokenId token;
  };
  std::vector<float> logits;          // a row with bans applied
  std::vector<double> weights;        // [V]
  std::vector<Candidate> candidates;  // [V]
};

// Uniform in [0, 1) with 53 bits, from a counter.
double uniform(uint64_t seed, uint64_t choice, uint64_t index);
// The seed of the number-th request, if it brings none.
uint64_t derived_seed(uint64_t engine_seed, uint64_t number);

// The token that follows the row `logits` [V]. index: tokens generated before it. banned: ids that
// may not be drawn (those of min_tokens). Nothing if the likeliest logit is not finite: NaN and
// infinity spread over a whole row within a layer, so it tells that the model is broken.
std::optional<TokenId> sample(const Sampling& sampling, uint64_t seed, int32_t choice,
                              int64_t index, std::span<const float> logits,
                              std::span<const TokenId> banned, SamplerScratch& scratch);

TokenLogprob token_logprob(std::span<const float> logits, TokenId token, int32_t top,
                           SamplerScratch& scratch);

}  // namespace coppice::engine
