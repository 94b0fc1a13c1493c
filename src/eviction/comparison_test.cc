// Whole comparisons on the bundled model, small.
#include "eviction/comparison.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>

#include "coppice/engine.h"
#include "eval/family_cases.h"
#include "eviction/loaded_model.h"

namespace coppice::eviction {
namespace {

using families::Family;
using families::Haystack;

EngineOptions engine_options() {
  EngineOptions options;
  options.model = COPPICE_SOURCE_DIR "/models/storefront";
  options.threads = 1;
  options.kv_budget = int64_t{64} << 20;
  return options;
}

ComparisonOptions comparison(const std::vector<std::string>& policies) {
  ComparisonOptions options;
  options.engine = engine_options();
  options.tasks = {{Family::kSystemPrompt, Haystack::kH3, 128, 2},
                   {Family::kMultiKey, Haystack::kH1, 128, 2}};
  options.budgets = {0.5};
  options.seeds = 1;
  options.samples = 10;
  options.per_context = 5;
  for (const std::string& policy : policies) {
    options.policies.push_back(find_policy(policy, options.protection).value());
  }
  return options;
}

struct Ran {
  Status status;
  std::vector<Outcome> outcomes;
};

Ran run(
    const ComparisonOptions& options, const std::vector<Outcome>& had = {},
    const std::function<bool()>& give_up = [] { return false; }) {
  Ran out;
  out.status =
      compare(options, {.have =
                            [&](const OutcomeKey& key) {
                              return std::ranges::find(had, key, &Outcome::key) != had.end();
                            },
                        .outcome =
                            [&](const Outcome& outcome) {
                              out.outcomes.push_back(outcome);
                              return Status();
                            },
                        .give_up = give_up,
                        .progress = [](const std::string&, int, int) {}});
  return out;
}

class Answer : public Observer {
 public:
  void on_finish(const Result& result, std::string_view) override { text_ = result.text; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

TEST(Comparison, TheWholeContextIsAnsweredAsByTheEngine) {
  const ComparisonOptions options = comparison({"full"});
  const Ran full = run(options);
  ASSERT_TRUE(full.status) << full.status.error().message;
  ASSERT_EQ(full.outcomes.size(), 2u);
  const auto engine = Engine::open(engine_options()).value();
  for (const Outcome& outcome : full.outcomes) {
    families::CaseOptions cases;
    cases.seed = 1;
    cases.family = outcome.key.task.family;
    cases.task.tokens = outcome.key.task.length;
    cases.samples = 10;
    cases.per_context = 5;
    std::string right, engines;
    for (const std::string& context : outcome.right) right += context;
    for (const storefront::Case& one : families::cases(cases)) {
      Request request;
      request.prompt = one.prompt;
      request.sampling.max_tokens = 12;
      const auto answer = std::make_shared<Answer>();
      ASSERT_TRUE(engine->submit(std::move(request), answer));
      engine->run();
      engines += answer->text() == one.answer ? '1' : '0';
    }
    EXPECT_EQ(right, engines) << outcome.key.task.name();
    EXPECT_GT(std::count(right.begin(), right.end(), '1'), 5);
    EXPECT_EQ(outcome.held, 1.0);
    EXPECT_EQ(outcome.kept, 1.0);
  }
}

TEST(Comparison, EveryPolicyHoldsItsBudget) {
  const std::vector<std::string> names{
      "full",           "window",  "streaming", "static-heads", "h2o",       "tova",   "snapkv",
      "snapkv-visible", "keydiff", "expected",  "kvzip",        "h2o+heads", "random", "key-norm"};
  ComparisonOptions options = comparison(names);
  options.samples = 6;
  options.per_context = 3;
  const Ran all = run(options);
  ASSERT_TRUE(all.status) << all.status.error().message;
  ASSERT_EQ(all.outcomes.size(), 2 * names.size());
  std::map<std::string, int64_t> right;
  for (const Outcome& outcome : all.outcomes) {
    SCOPED_TRACE(outcome.key.policy + " " + outcome.key.task.name());
    ASSERT_EQ(outcome.right.size(), 2u);
    for (const std::string& context : outcome.right) {
      EXPECT_EQ(context.size(), 3u);
      right[outcome.key.policy] += std::count(context.begin(), context.end(), '1');
    }
    if (outcome.key.policy == "full") continue;
    const bool gate = outcome.key.policy == "random" || outcome.key.policy == "key-norm";
    EXPECT_EQ(outcome.threshold.has_value(), gate);
    if (gate) {
      // One threshold for all tasks, found on others: near, not exact.
      EXPECT_NEAR(outcome.held, 0.5, 0.1);
    } else {
      EXPECT_LE(outcome.held, 0.5);
      EXPECT_GT(outcome.held, 0.5 - 1.0 / 64);  // less than a page of all
    }
    EXPECT_LT(outcome.kept, 0.62);
  }
  // What sees the answer's place keeps it; the most recent half does not.
  EXPECT_GE(right["kvzip"], right["full"] - 2);
  EXPECT_LE(right["window"], right["full"] - 3);
}

TEST(Comparison, OutcomesDoNotDependOnWhatElseIsRun) {
  const Ran alone = run(comparison({"snapkv"}));
  const Ran among = run(comparison({"kvzip", "snapkv-visible", "h2o", "snapkv"}));
  ASSERT_TRUE(alone.status && among.status);
  for (const Outcome& outcome : alone.outcomes) {
    const auto same = std::ranges::find(among.outcomes, outcome.key, &Outcome::key);
    ASSERT_NE(same, among.outcomes.end());
    EXPECT_EQ(same->right, outcome.right);
    EXPECT_EQ(same->held, outcome.held);
  }
}

TEST(Comparison, GoesOnFromWhatIsThere) {
  const ComparisonOptions options = comparison({"full", "tova", "random"});
  const Ran whole = run(options);
  ASSERT_TRUE(whole.status);
  std::vector<Outcome> had{whole.outcomes[0], whole.outcomes[3], whole.outcomes[4]};
  const Ran rest = run(options, had);
  ASSERT_TRUE(rest.status);
  ASSERT_EQ(rest.outcomes.size(), whole.outcomes.size() - had.size());
  for (const Outcome& outcome : rest.outcomes) {
    const auto same = std::ranges::find(whole.outcomes, outcome.key, &Outcome::key);
    ASSERT_NE(same, whole.outcomes.end());
    EXPECT_EQ(same->right, outcome.right) << outcome.key.policy;
    EXPECT_EQ(same->threshold, outcome.threshold);
  }
  EXPECT_TRUE(run(options, whole.outcomes).outcomes.empty());
}

TEST(Comparison, AThresholdBelongsToTheTasksItWasFoundOn) {
  ComparisonOptions options = comparison({"random", "static-heads", "tova"});
  std::vector<uint64_t> before;
  for (const PolicyPlan& policy : options.policies) before.push_back(identity_of(options, policy));
  options.tasks.pop_back();
  EXPECT_NE(identity_of(options, options.policies[0]), before[0]);
  EXPECT_NE(identity_of(options, options.policies[1]), before[1]);
  EXPECT_EQ(identity_of(options, options.policies[2]), before[2]);
}

// Overlays and a page for every list are held whatever is dropped.
TEST(Comparison, ABudgetThatNoThresholdHoldsIsSaidSo) {
  ComparisonOptions options = comparison({"random"});
  options.budgets = {0.02, 0.7};
  const Ran ran = run(options);
  ASSERT_TRUE(ran.status) << ran.status.error().message;
  for (const Outcome& outcome : ran.outcomes) {
    EXPECT_EQ(outcome.reached, outcome.key.budget > 0.5);
  }
}

TEST(Comparison, EndsWhereItIsTold) {
  int asked = 0;
  const Ran some = run(comparison({"full", "random"}), {}, [&] { return ++asked > 3; });
  ASSERT_FALSE(some.status);
  EXPECT_EQ(some.status.error().code, ErrorCode::kCancelled);
  EXPECT_EQ(some.outcomes.size(), 1u);  // two contexts of the first task, one of the second
}

TEST(Comparison, ChainsArePredicted) {
  ComparisonOptions options = comparison({"full", "window", "random"});
  options.tasks = {{Family::kMarkov, Haystack::kH3, 128, 2}};
  const Ran chains = run(options);
  ASSERT_TRUE(chains.status) << chains.status.error().message;
  ASSERT_EQ(chains.outcomes.size(), 3u);
  for (const Outcome& outcome : chains.outcomes) {
    EXPECT_TRUE(outcome.right.empty());
    ASSERT_EQ(outcome.nats.size(), 2u);
    for (const double nats : outcome.nats) {
      EXPECT_GT(nats, 1.0);
      EXPECT_LT(nats, 20.0);
    }
  }
  EXPECT_NE(chains.outcomes[0].nats, chains.outcomes[1].nats);
}

TEST(Comparison, RefusesWhatItCannotRun) {
  const auto unknown = find_policy("h3o", {});
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("snapkv"), std::string::npos);
  EXPECT_FALSE(find_policy("window+heads", {}));
  EXPECT_FALSE(find_policy("kvzip+heads", {}));  // it is so already
  const std::string gate = COPPICE_SOURCE_DIR "/models/storefront/gate.safetensors";
  EXPECT_TRUE(find_policy("mine=" + gate, {}));
  for (const char* taken : {"full=", "window=", "static-heads=", "h2o+heads=", "random="}) {
    EXPECT_FALSE(find_policy(taken + gate, {})) << taken;
  }
  ComparisonOptions options = comparison({"full"});
  options.policies.push_back(find_policy("kvzip", {}).value());
  options.engine.ctx = 200;  // a context and its replay are longer
  const Ran refused = run(options);
  ASSERT_FALSE(refused.status);
  EXPECT_EQ(refused.status.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(refused.status.error().message.find("--ctx is 200"), std::string::npos);
}

}  // namespace
}  // namespace coppice::eviction
