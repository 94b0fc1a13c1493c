// The pressure drill: requests over many prefixes, some of them far more often than others, in ever
// less memory; thinning against freeing whole nodes, least recently used first.
#include <cmath>
#include <random>

#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

constexpr int32_t kPrefixes = 200, kRequests = 3000;
constexpr int64_t kPrefixTokens = 1024, kMostQuestion = 24, kAnswer = 4;
constexpr double kZipf = 0.9;
constexpr Shape4 kShape{.page_slots = 16, .layers = 1, .kv_heads = 2, .head_dim = 16};

struct Wanted {
  int32_t prefix = 0;
  int64_t question = 0;  // tokens
};

// The committed trace: the same requests everywhere, as the generator's sequence is the standard's.
std::vector<Wanted> trace() {
  std::vector<double> sums;
  for (int32_t i = 0; i < kPrefixes; ++i) {
    sums.push_back((sums.empty() ? 0.0 : sums.back()) + std::pow(i + 1, -kZipf));
  }
  std::mt19937_64 random(20261123);
  std::vector<Wanted> out;
  for (int32_t i = 0; i < kRequests; ++i) {
    const double at = std::ldexp(static_cast<double>(random() >> 11), -53) * sums.back();
    const auto prefix = std::ranges::upper_bound(sums, at) - sums.begin();
    out.push_back(
        {static_cast<int32_t>(prefix), 8 + static_cast<int64_t>(random() % (kMostQuestion - 7))});
  }
  return out;
}

struct Outcome {
  double cached = 0;  // share of prompt tokens that were not evaluated
  double kept = 0;    // of a path's tokens, mean over requests
};

// A cache without a model: decisions are hashes, keys and values nobody's.
class Drill {
 public:
  Drill(bool elastic, int64_t bytes)
      : tier_{.rule = {.threshold = 0, .window = 16, .sinks = 4}, .elastic = elastic},
        backend_(kShape.page_slots) {
    KvCacheOptions options;
    options.layers = kShape.layers;
    options.kv_heads = kShape.kv_heads;
    options.head_dim = kShape.head_dim;
    options.kv_type = DType::kF32;
    options.budget_bytes = bytes;
    auto made = KvCache::create(backend_, options, least_recently_used());
    CHECK(made.has_value());
    cache_ = std::move(*made);
  }

  // All prefixes, nothing else: what they hold.
  int64_t prefixes_bytes() {
    for (int32_t i = 0; i < kPrefixes; ++i) serve(prefix(i), 0);
    return cache_->stats().bytes_held;
  }

  Outcome run(const std::vector<Wanted>& trace) {
    int64_t prompts = 0, cached = 0;
    TokenId fresh = 1 << 20;  // no two questions begin alike
    for (const Wanted& wanted : trace) {
      Tokens prompt = prefix(wanted.prefix);
      for (int64_t i = 0; i < wanted.question; ++i) prompt.push_back(fresh++);
      cached += serve(prompt, kAnswer);
      prompts += std::ssize(prompt);
    }
    cache_->check_invariants();
    return {static_cast<double>(cached) / static_cast<double>(prompts),
            kept_ / static_cast<double>(trace.size())};
  }

 private:
  static Tokens prefix(int32_t i) {
    return counting(kPrefixTokens, static_cast<TokenId>(i * kPrefixTokens));
  }

  // The tokens that others had computed.
  int64_t serve(const Tokens& prompt, int64_t answer) {
    const std::vector<int64_t> boundaries = {kPrefixTokens};
    const SequenceId id = cache_->open("drill", prompt, {.tier = &tier_, .boundaries = boundaries});
    CHECK(cache_->admit(id, std::ssize(prompt) + answer));
    const int64_t cached = cache_->progress(id).computed;
    for (int64_t grown = 0;; ++grown) {
      while (cache_->progress(id).computed < cache_->progress(id).tokens) step(id);
      if (grown == answer) break;
      cache_->append(id, static_cast<TokenId>(grown));
    }
    kept_ += cache_->footprint(id).keep_ratio[0];
    cache_->close(id);
    return cached;
  }

  void step(SequenceId id) {
    CHECK(cache_->reserve(id, 512).has_value());
    Step& step = cache_->plan(Partition::kTwoPhase);
    logits_.resize(static_cast<size_t>(step.plan.rows * kShape.kv_heads));
    for (int32_t layer = 0; layer < kShape.layers; ++layer) {
      for (size_t k = 0; k < logits_.size(); ++k) {
        const auto token = static_cast<uint64_t>(step.tokens[k / kShape.kv_heads]);
        const auto head = static_cast<int32_t>(k % kShape.kv_heads);
        logits_[k] = gate_logit(mix(token + 1), layer * kShape.kv_heads + head);
      }
      ops::resolve_gate(step.gate, layer,
                        {logits_.data(), DType::kF32, {step.plan.rows, kShape.kv_heads}});
    }
    cache_->commit();
  }

  Tier tier_;
  PageBackend backend_;
  std::unique_ptr<KvCache> cache_;
  std::vector<float> logits_;
  double kept_ = 0;
};

TEST(ThinningDrill, ServesMoreThanFreeingAtEveryBudget) {
  const std::vector<Wanted> requests = trace();
  constexpr int64_t kPlenty = int64_t{1} << 30;
  const int64_t all = Drill(false, kPlenty).prefixes_bytes();
  const Outcome ceiling = Drill(false, kPlenty).run(requests);
  std::printf("%d prefixes hold %.1f MB; nothing freed: %.4f cached\n", kPrefixes,
              static_cast<double>(all) / 1e6, ceiling.cached);
  std::vector<double> steps;
  double before = 0;
  for (const int percent : {100, 75, 50, 25}) {
    const Outcome plain = Drill(false, all * percent / 100).run(requests);
    const Outcome thin = Drill(true, all * percent / 100).run(requests);
    std::printf("%3d %%: freed %.4f, thinned %.4f: x %.3f; %.3f of what the gate kept was found\n",
                percent, plain.cached, thin.cached, thin.cached / plain.cached,
                thin.kept / ceiling.kept);
    EXPECT_GE(thin.cached, plain.cached) << percent;
    EXPECT_LE(thin.cached, ceiling.cached) << percent;
    if (percent == 50) {
      EXPECT_GE(thin.cached, 1.3 * plain.cached);
    }
    if (percent < 100) steps.push_back(before - thin.cached);
    before = thin.cached;
  }
  const double mean = std::accumulate(steps.begin(), steps.end(), 0.0) / 3;
  for (const double step : steps) EXPECT_LE(step, 1.5 * mean);
}

}  // namespace
}  // namespace coppice::kv
