#include "eviction/comparison.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/splitmix.h"
#include "eviction/gate_runs.h"
#include "eviction/loaded_model.h"

namespace coppice::eviction {

std::string Task::name() const {
  std::string name(families::info(family).name);
  if (family == families::Family::kVariables) name.append("-").append(std::to_string(hops));
  name.append(" ").append(families::haystack_name(haystack));
  return name.append(" ").append(std::to_string(length));
}

Status check_give_up(const ComparisonHooks& hooks) {
  if (!hooks.give_up()) return {};
  return fail(ErrorCode::kCancelled,
              "interrupted; what was saved (--out) is not measured again by the same command");
}

Tally::Tally(const std::vector<Sample>& samples) {
  uint64_t& hash = outcome_.asked;
  const auto mix = [&](const std::vector<int32_t>& tokens) {
    for (const int32_t token : tokens) {
      hash = splitmix((hash ^ static_cast<uint64_t>(token)) + kGoldenGamma);
    }
    hash = splitmix(hash + kGoldenGamma);
  };
  for (const Sample& sample : samples) {
    mix(sample.context);
    mix(sample.following);
    for (const Question& question : sample.questions) mix(question.tokens);
  }
}

void Tally::add(const Sample& sample, const std::vector<std::vector<int32_t>>& answers,
                const LoadedModel& model) {
  std::string right;
  for (size_t i = 0; i < answers.size(); ++i) {
    // One that did not end is as long as it could be.
    const bool ended = std::ssize(answers[i]) < sample.questions[i].most;
    right += ended && model.is_right(answers[i], sample.answers[i]) ? '1' : '0';
    outcome_.answer_tokens += static_cast<double>(answers[i].size());
    ++answers_;
  }
  outcome_.right.push_back(right);
}

void Tally::add(double held, double kept) {
  outcome_.held += held;
  outcome_.kept += kept;
  ++contexts_;
}

Outcome Tally::finish(const OutcomeKey& key) {
  outcome_.key = key;
  outcome_.held /= std::max(1, contexts_);
  outcome_.kept /= std::max(1, contexts_);
  outcome_.answer_tokens /= std::max(1, answers_);
  return std::move(outcome_);
}

uint64_t identity_of(const ComparisonOptions& options, const PolicyPlan& policy) {
  // A threshold, or an order of lists, is found on all tasks together.
  uint64_t identity = policy.identity;
  if (policy.kind != PolicyPlan::Kind::kGate && policy.kind != PolicyPlan::Kind::kStatic) {
    return identity;
  }
  for (const Task& task : options.tasks) {
    for (const char c : task.name()) {
      identity = splitmix((identity ^ static_cast<unsigned char>(c)) + kGoldenGamma);
    }
  }
  return identity;
}

std::vector<OutcomeKey> missing(const ComparisonOptions& options, const ComparisonHooks& hooks,
                                const PolicyPlan& policy, const Task& task, uint64_t seed) {
  std::vector<OutcomeKey> out;
  const std::vector<double> whole{1.0};
  for (const double budget : policy.kind == PolicyPlan::Kind::kFull ? whole : options.budgets) {
    OutcomeKey key{policy.name, budget, task, seed, identity_of(options, policy)};
    if (!hooks.have(key)) out.push_back(std::move(key));
  }
  return out;
}

namespace {

// Policies that are scored after the whole context was read: it is read once for all of them.
class ScoredRuns {
 public:
  ScoredRuns(const ComparisonOptions& options, const ComparisonHooks& hooks)
      : options_(options), hooks_(hooks) {}
  Status run();

 private:
  struct Wanted {
    const PolicyPlan* policy;
    OutcomeKey key;
    Tally tally;
  };
  Status check_lengths() const;
  Status run_task(const Task& task, uint64_t seed);
  Status run_sample(const Sample& sample, KeptContext& context, std::vector<Wanted>& wanted);
  Status rank_lists();
  Status check_replay(const Task& task, const Sample& sample) const;
  KeepMask mask_of(const Wanted& wanted, const Scores& scores, int32_t tokens,
                   const Budget& budget) const;
  void judge(const Sample& sample, KeptContext& context, const KeepMask& mask, Tally& tally) const;
  Status judge_in_sight(const Sample& sample, KeptContext& context,
                        std::span<Wanted* const> wanted) const;

  const ComparisonOptions& options_;
  const ComparisonHooks& hooks_;
  std::unique_ptr<LoadedModel> model_;
  std::vector<int32_t> list_order_;  // static-heads: those that reach far first
};

Status ScoredRuns::run() {
  TRY(model_, LoadedModel::open(options_.engine, "", 0));
  TRY_STATUS(check_lengths());
  const int all = options_.seeds * static_cast<int>(options_.tasks.size());
  int done = 0;
  for (int i = 0; i < options_.seeds; ++i) {
    for (const Task& task : options_.tasks) {
      hooks_.progress("read in full: " + task.name(), done++, all);
      TRY_STATUS(run_task(task, options_.first_seed + static_cast<uint64_t>(i)));
    }
  }
  return {};
}

// Before hours are spent on the tasks that come first.
Status ScoredRuns::check_lengths() const {
  for (const Task& task : options_.tasks) {
    TRY(const auto samples, model_->samples(task, kApartSeed, 1, 1));
    TRY_STATUS(check_replay(task, samples.front()));
  }
  return {};
}

Status ScoredRuns::check_replay(const Task& task, const Sample& sample) const {
  const auto replays = [](const PolicyPlan& policy) {
    return policy.scored != nullptr && policy.scored->sight == Sight::kReplay;
  };
  if (std::ranges::none_of(options_.policies, replays)) return {};
  const int64_t tokens = std::ssize(sample.context);
  if (2 * tokens + std::ssize(model_->marker()) <= model_->ctx()) return {};
  return fail(ErrorCode::kInvalidArgument,
              "--length: " + task.name() + " has contexts of " + std::to_string(tokens) +
                  " tokens; kvzip reads one twice, and --ctx is " + std::to_string(model_->ctx()));
}

// A gate that cannot be opened is refused before anything is run.
Status check_gates(const ComparisonOptions& options) {
  TRY(const auto backend, engine::backend_for(options.engine));
  TRY(const auto checkpoint, model::Checkpoint::open(options.engine.model));
  for (const PolicyPlan& policy : options.policies) {
    if (policy.kind != PolicyPlan::Kind::kGate) continue;
    const auto gate =
        model::Gate::open(policy.gate, *checkpoint, *backend,
                          {.any_base = options.engine.gate_force, .evaluation = true});
    if (!gate) return fail(gate.error().code, "--policies: " + gate.error().message);
  }
  return {};
}

Status ScoredRuns::run_task(const Task& task, uint64_t seed) {
  std::vector<Wanted> wanted;
  for (const PolicyPlan& policy : options_.policies) {
    if (policy.kind == PolicyPlan::Kind::kGate) continue;
    for (OutcomeKey& key : missing(options_, hooks_, policy, task, seed)) {
      if (policy.kind == PolicyPlan::Kind::kStatic) TRY_STATUS(rank_lists());
      wanted.push_back({&policy, std::move(key), Tally({})});
    }
  }
  if (wanted.empty()) return {};
  TRY(const auto samples, model_->samples(task, seed, options_.samples, options_.per_context));
  for (const Sample& sample : samples) TRY_STATUS(check_replay(task, sample));
  for (Wanted& one : wanted) one.tally = Tally(samples);
  TRY(const auto context, model_->context_for(samples));
  for (const Sample& sample : samples) TRY_STATUS(run_sample(sample, *context, wanted));
  for (Wanted& one : wanted) TRY_STATUS(hooks_.outcome(one.tally.finish(one.key)));
  return {};
}

Status ScoredRuns::run_sample(const Sample& sample, KeptContext& context,
                              std::vector<Wanted>& wanted) {
  using Kind = PolicyPlan::Kind;
  TRY_STATUS(check_give_up(hooks_));
  context.read(sample.context);
  const auto tokens = static_cast<int32_t>(sample.context.size());
  std::vector<std::pair<const ScoredPolicy*, Scores>> known;
  const auto scores_of = [&](const PolicyPlan& policy) -> const Scores& {
    for (const auto& [scored, scores] : known) {
      if (scored == policy.scored) return scores;
    }
    if (policy.kind != Kind::kScored) return known.emplace_back(nullptr, Scores()).second;
    if (policy.scored->sight == Sight::kReplay) {
      std::vector<int32_t> replay = model_->marker();
      replay.insert(replay.end(), sample.context.begin(), sample.context.end());
      context.read_beyond(replay);
    }
    const Scores& scores =
        known.emplace_back(policy.scored, policy.scored->scores(ContextView(context))).second;
    if (policy.scored->sight == Sight::kReplay) context.read_beyond({});
    return scores;
  };
  std::vector<Wanted*> in_sight;
  for (Wanted& one : wanted) {
    const bool sees =
        one.policy->kind == Kind::kScored && one.policy->scored->sight == Sight::kQuestion;
    if (sees) {
      in_sight.push_back(&one);
      continue;
    }
    const Budget budget = make_budget(one.key.budget, model_->lists(), tokens, context.page_slots(),
                                      options_.protection);
    const KeepMask mask = mask_of(one, scores_of(*one.policy), tokens, budget);
    judge(sample, context, mask, one.tally);
  }
  return judge_in_sight(sample, context, in_sight);
}

KeepMask ScoredRuns::mask_of(const Wanted& wanted, const Scores& scores, int32_t tokens,
                             const Budget& budget) const {
  constexpr double kSafeguard = 0.2;  // Ada-KV's: of a head's even share
  const PolicyPlan& policy = *wanted.policy;
  Competition competition;
  if (policy.heads) competition = {model_->config().num_key_value_heads, kSafeguard};
  if (policy.scored != nullptr && policy.scored->pooled) competition = {model_->lists(), 0};
  switch (policy.kind) {
    case PolicyPlan::Kind::kRecent:
      return keep_recent(tokens, budget, policy.sinks);
    case PolicyPlan::Kind::kStatic:
      return keep_lists(list_order_, tokens, budget);
    case PolicyPlan::Kind::kScored:
      return keep_best(scores, tokens, budget, competition);
    case PolicyPlan::Kind::kFull:
    case PolicyPlan::Kind::kGate:
      break;
  }
  return KeepMask(model_->lists(), tokens, 1);
}

void ScoredRuns::judge(const Sample& sample, KeptContext& context, const KeepMask& mask,
                       Tally& tally) const {
  context.keep(mask);
  tally.add(mask.held_share(context.page_slots()), mask.kept_share());
  if (!sample.following.empty()) {
    tally.add_nats(context.nats(sample.following));
    return;
  }
  tally.add(sample, context.answer(sample.questions, model_->config().eos_token_ids), *model_);
}

// Every question has a choice of its own.
Status ScoredRuns::judge_in_sight(const Sample& sample, KeptContext& context,
                                  std::span<Wanted* const> wanted) const {
  if (wanted.empty() || sample.questions.empty()) return {};
  const auto tokens = static_cast<int32_t>(sample.context.size());
  std::vector<std::vector<std::vector<int32_t>>> answers(wanted.size());
  std::vector<double> held(wanted.size()), kept(wanted.size());
  for (const Question& question : sample.questions) {
    TRY_STATUS(check_give_up(hooks_));
    context.read_beyond(question.tokens);
    const ContextView view(context);
    const Scores scores =
        wanted.front()->policy->scored->scores(view);  // one policy sees this much
    for (size_t i = 0; i < wanted.size(); ++i) {
      const Budget budget = make_budget(wanted[i]->key.budget, model_->lists(), tokens,
                                        context.page_slots(), options_.protection);
      const KeepMask mask = mask_of(*wanted[i], scores, tokens, budget);
      context.keep(mask);
      held[i] += mask.held_share(context.page_slots());
      kept[i] += mask.kept_share();
      answers[i].push_back(context.answer({&question, 1}, model_->config().eos_token_ids).front());
    }
  }
  const auto asked = static_cast<double>(sample.questions.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    wanted[i]->tally.add(held[i] / asked, kept[i] / asked);
    wanted[i]->tally.add(sample, answers[i], *model_);
  }
  return {};
}

// By a question and its answer on a context of each task that nothing is judged on.
Status ScoredRuns::rank_lists() {
  if (!list_order_.empty()) return {};
  std::vector<double> far(static_cast<size_t>(model_->lists()));
  for (const Task& task : options_.tasks) {
    TRY(const auto samples, model_->samples(task, kApartSeed, 1, 1));
    TRY(const auto context, model_->context_for(samples));
    TRY_STATUS(check_give_up(hooks_));
    const Sample& sample = samples.front();
    std::vector<int32_t> asked = sample.following;  // of a chain
    if (!sample.questions.empty()) {
      asked = sample.questions.front().tokens;
      const auto answer = model_->parts().tokenizer->encode(sample.answers.front(), false);
      asked.insert(asked.end(), answer.begin(), answer.end());
    }
    context->read(sample.context);
    context->read_beyond(asked);
    const auto more = far_attention(ContextView(*context), context->tokens(),
                                    options_.protection.sinks, options_.protection.window);
    for (size_t i = 0; i < far.size(); ++i) far[i] += more[i];
  }
  list_order_.resize(far.size());
  std::iota(list_order_.begin(), list_order_.end(), 0);
  std::ranges::stable_sort(list_order_, std::greater<>(),
                           [&](int32_t list) { return far[static_cast<size_t>(list)]; });
  return {};
}

}  // namespace

Status compare(const ComparisonOptions& options, const ComparisonHooks& hooks) {
  TRY_STATUS(check_gates(options));
  TRY_STATUS(ScoredRuns(options, hooks).run());
  for (const PolicyPlan& policy : options.policies) {
    if (policy.kind == PolicyPlan::Kind::kGate) TRY_STATUS(run_gate(options, hooks, policy));
  }
  return {};
}

}  // namespace coppice::eviction
