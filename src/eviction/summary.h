// What:    what outcomes amount to: a policy's accuracy at a budget, what it loses against the
// whole
//          context, and how sure that is.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   never; what was not run is missing from the lines.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "eviction/comparison.h"

namespace coppice::eviction {

// A policy at a budget, over tasks of which each counts alike, all seeds together.
struct Line {
  std::string policy;
  double budget = 1;
  int tasks = 0;
  int64_t contexts = 0, asked = 0;
  double exact = 0;  // share of questions answered exactly
  double held = 0, kept = 0, answer_tokens = 0;
  bool reached = true;  // the budget, by every gate's threshold
  // Against "full" on the same questions; empty where that was not run. Points lost, with the 95 %
  // interval of a bootstrap that draws whole contexts (2,000 times) within every task: none where a
  // task has but one.
  struct Loss {
    double points = 0;
    std::optional<std::pair<double, double>> interval = {};
    int64_t broken = 0, mended = 0;  // answers that were right and are wrong, and the reverse
  };
  std::optional<Loss> loss = {};
  std::optional<double> nats = {};  // markov: a token's -log p, ...
  double chain_held = 0;            // ... and what was held there
};

// Those of `tasks` (all where empty) in the order in which policies and budgets first come.
std::vector<Line> summarise(const std::vector<Outcome>& outcomes, const std::vector<Task>& tasks);
// The tasks of the outcomes, in the order in which they first come.
std::vector<Task> tasks_of(const std::vector<Outcome>& outcomes);
// How often "full" answers a task exactly; empty where it was not run or nothing is asked.
std::optional<double> full_rate(const std::vector<Outcome>& outcomes, const Task& task);

}  // namespace coppice::eviction
