#include "eviction/gate_runs.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "eviction/served_context.h"

namespace coppice::eviction {
namespace {

// A threshold for each budget, within one part in a hundred of it.
constexpr double kWidest = 1024;  // |threshold|: of logits, and of norms of keys
constexpr int kTries = 24;
constexpr double kCloseEnough = 0.01;
// Off by more than that, the budget was not reached: a gate that drops all it can may hold more.
constexpr double kReached = 0.05;
// Contexts of each task that a threshold is found on.
constexpr int kApart = 3;

// One gate, in the tree where it is served, else in a pass over the whole prompt.
class GateRun {
 public:
  GateRun(const ComparisonOptions& options, const ComparisonHooks& hooks, const PolicyPlan& policy)
      : options_(options), hooks_(hooks), policy_(policy) {}
  Status run();

 private:
  struct Held {
    double held = 0, kept = 0;  // shares
  };
  struct Found {
    double threshold = 0;
    bool reached = false;  // with it the budget is held
  };
  bool is_global() const {
    const model::GateHeader* header = model_->parts().gate->header();
    return header != nullptr && header->kind == model::GateKind::kGlobal;
  }
  ops::GateRule rule(double threshold) const {
    ops::GateRule rule = model_->parts().gate->rule(model::GateTier::kNormal);
    rule.threshold = static_cast<float>(threshold);
    return rule;
  }
  Expected<Held> read(const Sample& sample, double threshold);
  Status judge(const Sample& sample, Tally& tally);
  Status prepare(const std::vector<Sample>& samples);
  Expected<Found> threshold_for(double budget);
  Status run_task(const Task& task, uint64_t seed);

  const ComparisonOptions& options_;
  const ComparisonHooks& hooks_;
  const PolicyPlan& policy_;
  std::unique_ptr<LoadedModel> model_;
  std::unique_ptr<ServedContext> served_;  // of a served kind
  std::unique_ptr<KeptContext> prompt_;    // of a global gate, for the samples in hand
  std::vector<Sample> apart_;              // what thresholds are found on
  std::map<double, Found> thresholds_;     // by budget
};

Status GateRun::run() {
  std::vector<std::pair<Task, uint64_t>> left;
  for (int i = 0; i < options_.seeds; ++i) {
    for (const Task& task : options_.tasks) {
      const uint64_t number = options_.first_seed + static_cast<uint64_t>(i);
      if (!missing(options_, hooks_, policy_, task, number).empty())
        left.emplace_back(task, number);
    }
  }
  if (left.empty()) return {};
  int32_t longest = 0;
  for (const Task& task : options_.tasks) longest = std::max(longest, task.length);
  // A global gate has the whole prompt in one step; contexts are a sentence longer at most.
  constexpr int32_t kSentence = 128;
  TRY(model_, LoadedModel::open(options_.engine, policy_.gate, longest + kSentence));
  engine::Parts& parts = model_->parts();
  if (!is_global()) {
    served_ =
        std::make_unique<ServedContext>(*parts.model, *parts.gate, *parts.cache, model_->limits());
  }
  for (const Task& task : options_.tasks) {
    TRY(auto samples, model_->samples(task, kApartSeed, kApart, 1));
    for (Sample& sample : samples) apart_.push_back(std::move(sample));
  }
  for (size_t i = 0; i < left.size(); ++i) {
    hooks_.progress(policy_.name + ": " + left[i].first.name(), static_cast<int>(i),
                    static_cast<int>(left.size()));
    TRY_STATUS(run_task(left[i].first, left[i].second));
  }
  served_.reset();
  return {};
}

Status GateRun::prepare(const std::vector<Sample>& samples) {
  if (!is_global()) return {};
  TRY(prompt_, model_->context_for(samples));
  return {};
}

Expected<GateRun::Held> GateRun::read(const Sample& sample, double threshold) {
  TRY_STATUS(check_give_up(hooks_));
  engine::Parts& parts = model_->parts();
  if (prompt_ != nullptr) {
    const auto tokens = static_cast<int64_t>(sample.context.size());
    if (tokens > model_->limits().max_rows) {
      return fail(ErrorCode::kInvalidArgument,
                  policy_.name + ": a global gate reads a whole context in one step, and one has " +
                      std::to_string(tokens) + " tokens; --max-rows is " +
                      std::to_string(model_->limits().max_rows));
    }
    const KeepMask kept = prompt_->read_gated(sample.context, *parts.gate, rule(threshold));
    KeepMask seen = kept;  // what a row after the context sees of the last tokens is held too
    const int32_t window = rule(threshold).window - 1;
    for (int32_t list = 0; list < seen.lists; ++list) {
      const auto flags = seen.list(list);
      std::fill(flags.end() - std::min(window, seen.tokens), flags.end(), uint8_t{1});
    }
    return Held{seen.held_share(prompt_->page_slots()), kept.kept_share()};
  }
  TRY(const auto held, served_->read(sample.context, rule(threshold)));
  const ops::KvLayout& layout = parts.cache->arena().layout;
  const auto tokens = static_cast<int64_t>(sample.context.size());
  const int64_t whole =
      (tokens + layout.page_slots - 1) / layout.page_slots * model_->lists() * layout.page_bytes;
  double kept = 0;
  for (const double ratio : held.keep_ratio) kept += ratio;
  return Held{static_cast<double>(held.bytes) / static_cast<double>(whole),
              kept / static_cast<double>(held.keep_ratio.size())};
}

Status GateRun::judge(const Sample& sample, Tally& tally) {
  const auto& stops = model_->config().eos_token_ids;
  if (!sample.following.empty()) {
    if (prompt_ != nullptr) {
      tally.add_nats(prompt_->nats(sample.following));
    } else {
      TRY(const double nats, served_->nats(sample.following));
      tally.add_nats(nats);
    }
    return {};
  }
  if (prompt_ != nullptr) {
    tally.add(sample, prompt_->answer(sample.questions, stops), *model_);
    return {};
  }
  TRY(const auto answers, served_->answer(sample.questions, stops));
  tally.add(sample, answers, *model_);
  return {};
}

// The higher, the less is held. From 0 outwards by fours until the budget lies between two
// thresholds, then the middle again and again.
double next_try(double low, double high) {
  constexpr double kStep = 4;
  if (low == -kWidest && high == kWidest) return 0;
  if (high == kWidest) return std::min(std::max(1.0, kStep * low), (low + high) / 2);
  if (low == -kWidest) return std::max(std::min(-1.0, kStep * high), (low + high) / 2);
  return (low + high) / 2;
}

Expected<GateRun::Found> GateRun::threshold_for(double budget) {
  if (const auto known = thresholds_.find(budget); known != thresholds_.end()) {
    return known->second;
  }
  TRY_STATUS(prepare(apart_));
  double low = -kWidest, high = kWidest, best = high, least = 1e9;
  for (int i = 0; i < kTries && least > kCloseEnough * budget; ++i) {
    const double middle = next_try(low, high);
    double held = 0;
    for (const Sample& sample : apart_) {
      TRY(const Held one, read(sample, middle));
      held += one.held / static_cast<double>(apart_.size());
    }
    if (std::abs(held - budget) < least) {
      least = std::abs(held - budget);
      best = middle;
    }
    (held > budget ? low : high) = middle;
    // What drops or keeps everything does not come nearer.
    if (low > kWidest / 2 || high < -kWidest / 2) break;
  }
  const Found found{best, least <= kReached * budget};
  thresholds_[budget] = found;
  return found;
}

Status GateRun::run_task(const Task& task, uint64_t seed) {
  TRY(const auto samples, model_->samples(task, seed, options_.samples, options_.per_context));
  for (const OutcomeKey& key : missing(options_, hooks_, policy_, task, seed)) {
    TRY(const Found found, threshold_for(key.budget));
    TRY_STATUS(prepare(samples));
    Tally tally(samples);
    for (const Sample& sample : samples) {
      TRY(const Held held, read(sample, found.threshold));
      tally.add(held.held, held.kept);
      TRY_STATUS(judge(sample, tally));
    }
    Outcome outcome = tally.finish(key);
    outcome.threshold = found.threshold;
    outcome.reached = found.reached;
    TRY_STATUS(hooks_.outcome(outcome));
  }
  return {};
}

}  // namespace

Status run_gate(const ComparisonOptions& options, const ComparisonHooks& hooks,
                const PolicyPlan& policy) {
  return GateRun(options, hooks, policy).run();
}

}  // namespace coppice::eviction
