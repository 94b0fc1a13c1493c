// What:    policies of eviction on one model, one set of tasks and one account of bytes: what is
//          asked, how it is run, and what came of it.
// Owns:    plain values; run() owns the model while it lasts.
// Threads: one calling thread.
// Fails:   as the model's files and the gates; kInvalidArgument for a context that the model cannot
//          hold; kCancelled once `give_up` says so.
//
// The context is read and compressed before the question is known; question and answer are kept.
// A budget is a share of the bytes of the pages that the whole context takes. Scored policies fill
// it to the page in every context. A gate, which knows no budget, gets one threshold for each
// budget, so that it holds that share on contexts drawn apart, averaged over the tasks; what it
// holds in the end is reported: for served kinds by the cache itself, overlay and probabilities
// included.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "coppice/options.h"
#include "eval/families.h"
#include "eviction/policy.h"

namespace coppice::eviction {

struct Task {
  families::Family family = families::Family::kNeedle;
  families::Haystack haystack = families::Haystack::kH1;  // of families that have several
  int length = 1024;                                      // tokens of a context, about
  int hops = 2;                                           // variables
  std::string name() const;                               // "needle h1 1024"
  bool operator==(const Task&) const = default;
};

struct ComparisonOptions {
  EngineOptions engine;
  std::vector<Task> tasks;
  std::vector<PolicyPlan> policies;
  std::vector<double> budgets;  // shares in (0, 1]
  uint64_t first_seed = 1;
  int seeds = 3;         // draws, of seeds from the first on
  int samples = 500;     // questions of a task and seed
  int per_context = 32;  // most questions to a context
  Protection protection;
};

struct OutcomeKey {
  std::string policy;
  double budget = 1;
  Task task;
  uint64_t seed = 1;
  uint64_t identity = 0;  // PolicyPlan's
  bool operator==(const OutcomeKey&) const = default;
};

struct Outcome {
  OutcomeKey key;
  std::vector<std::string> right;  // of each context: '1' for a question answered exactly, else '0'
  std::vector<double> nats;        // markov: of each context, a token's -log p beyond it
  double held = 0;                 // bytes held over those of the whole context's pages, mean
  double kept = 0;                 // tokens kept over tokens, mean over lists and contexts
  double answer_tokens = 0;        // of the answers given, mean
  uint64_t asked = 0;              // a hash of the contexts and questions: what may be paired
  bool reached = true;             // a gate's threshold holds the budget; else it held more or less
  std::optional<double> threshold = {};  // of a gate
};

struct ComparisonHooks {
  std::function<bool(const OutcomeKey&)> have;    // it need not be run
  std::function<Status(const Outcome&)> outcome;  // it was run
  std::function<bool()> give_up;
  std::function<void(const std::string& what, int done, int all)> progress;
};

// What an outcome of a policy depends on besides its key's other parts.
uint64_t identity_of(const ComparisonOptions& options, const PolicyPlan& policy);
Status compare(const ComparisonOptions& options, const ComparisonHooks& hooks);

}  // namespace coppice::eviction
