#include "gate_bench.h"

#include <algorithm>
#include <utility>

namespace coppice::tools {
namespace {

using Job = EngineBench::Job;

// Slots of a page, at most: what a list may have begun and not filled.
constexpr int64_t kPageTokens = 16;

std::vector<TokenId> joined(const std::vector<TokenId>& a, const std::vector<TokenId>& b) {
  std::vector<TokenId> out = a;
  out.insert(out.end(), b.begin(), b.end());
  return out;
}

double attention_seconds(const Profile& profile) {
  double sum = 0;
  for (const ProfileEntry& entry : profile.entries) {
    if (entry.name.starts_with("attention")) sum += entry.seconds;
  }
  return sum;
}

}  // namespace

Expected<std::unique_ptr<GateBench>> GateBench::open(const EngineOptions& options, KvTier tier) {
  EngineOptions chosen = options;
  chosen.profile = true;
  chosen.kv_tier = tier;
  TRY(auto bench, EngineBench::open(chosen));
  return std::unique_ptr<GateBench>(new GateBench(std::move(bench), tier));
}

Status GateBench::round(const GateShape& shape) {
  const auto shared = bench_->random_tokens(shape.shared);
  std::vector<std::vector<TokenId>> own;
  const auto first = bench_->different_tokens(shape.users);
  for (int64_t i = 0; i < shape.users; ++i) {
    own.push_back(joined({first[static_cast<size_t>(i)]}, bench_->random_tokens(shape.own - 1)));
  }
  gated_first_ = !gated_first_;
  for (const bool gated : {gated_first_, !gated_first_}) {
    TRY_STATUS(measure(shape, shared, own, gated ? tier_ : KvTier::kOff, gated ? gated_ : off_));
  }
  return {};
}

Status GateBench::measure(const GateShape& shape, const std::vector<TokenId>& shared,
                          const std::vector<std::vector<TokenId>>& own, KvTier tier,
                          TierFigures& figures) {
  Engine& engine = bench_->engine();
  const std::vector<int64_t> parts{shape.shared};  // where users part
  bench_->forget();
  TRY(const double prefill,
      bench_->run(
          {{.prompt = shared, .salt = {}, .generate = 1, .tier = tier, .boundaries = parts}}));
  figures.prefill.add(prefill);
  figures.prefix_bytes = engine.stats().bytes_held;
  // The users' own tokens first, so that the answers alone are timed.
  std::vector<Job> jobs;
  for (const auto& tokens : own) {
    jobs.push_back({joined(shared, tokens), {}, 1, tier, parts});
  }
  TRY_STATUS(bench_->run(jobs));
  for (Job& job : jobs) job.generate = static_cast<int32_t>(shape.generate);
  engine.reset_peak();
  engine.reset_profile();
  TRY_STATUS(bench_->run(std::move(jobs)));
  const Profile profile = engine.profile();
  figures.attention.add(attention_seconds(profile));
  figures.steps.add(profile.seconds);
  figures.bytes = engine.stats().peak.bytes_held;
  return {};
}

Status GateBench::count_held(const GateShape& shape) {
  const int64_t budget = bench_->engine().stats().kv_budget;
  // What so many requests take without a gate: every token, and a page for each that is begun.
  const int64_t tokens = shape.held_shared + shape.held_users * (shape.held_own + kPageTokens);
  const int64_t bytes = std::min(budget, tokens * bench_->engine().stats().bytes_per_token);
  TRY_STATUS(count(shape, KvTier::kOff, bytes, off_));
  TRY_STATUS(count(shape, tier_, bytes, gated_));
  return bench_->engine().set_budget(budget);
}

Status GateBench::count(const GateShape& shape, KvTier tier, int64_t budget, TierFigures& figures) {
  bench_->forget();
  TRY_STATUS(bench_->engine().set_budget(budget));
  const auto shared = bench_->random_tokens(shape.held_shared);
  const int64_t many = shape.held_users * 8;
  std::vector<Job> jobs;
  for (int64_t i = 0; i < many; ++i) {
    jobs.push_back({joined(shared, bench_->random_tokens(shape.held_own - shape.held_generate)),
                    {},
                    static_cast<int32_t>(shape.held_generate),
                    tier,
                    {shape.held_shared}});
  }
  figures.at_once = 0;
  const auto ran = bench_->run(std::move(jobs), {}, [&] {
    figures.at_once = std::max(figures.at_once, bench_->engine().stats().live);
  });
  if (ran) return {};
  if (ran.error().code != ErrorCode::kTooLarge) return fail(ran.error());
  // Admission goes by the worst case, which under a gate is more than the tokens' own bytes.
  return fail(ErrorCode::kTooLarge,
              "--held-users: the bytes of " + std::to_string(shape.held_users) +
                  " requests do not hold one in tier " + std::string(kv_tier_name(tier)) + " (" +
                  ran.error().message + "); raise it, or leave the count out with --no-held");
}

}  // namespace coppice::tools
