#include "eviction/summary.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "eval/storefront.h"

namespace coppice::eviction {
namespace {

constexpr int kReplicates = 2000;

const Outcome* find(const std::vector<Outcome>& outcomes, const std::string& policy, double budget,
                    const Task& task, uint64_t seed) {
  for (const Outcome& outcome : outcomes) {
    const OutcomeKey& key = outcome.key;
    if (key.policy == policy && key.budget == budget && key.task == task && key.seed == seed) {
      return &outcome;
    }
  }
  return nullptr;
}

int64_t ones(const std::string& right) { return std::count(right.begin(), right.end(), '1'); }

bool same_shape(const Outcome& a, const Outcome& b) {
  if (a.right.size() != b.right.size()) return false;
  for (size_t i = 0; i < a.right.size(); ++i) {
    if (a.right[i].size() != b.right[i].size()) return false;
  }
  return true;
}

// A context of which both the policy and the whole answered the same questions.
struct Pair {
  int64_t asked = 0, full = 0, policy = 0, broken = 0, mended = 0;
};

Pair pair_of(const std::string& full, const std::string& policy) {
  Pair pair{std::ssize(full), ones(full), ones(policy)};
  for (size_t i = 0; i < full.size(); ++i) {
    pair.broken += full[i] == '1' && policy[i] == '0' ? 1 : 0;
    pair.mended += full[i] == '0' && policy[i] == '1' ? 1 : 0;
  }
  return pair;
}

using PairsByTask = std::vector<std::vector<Pair>>;

// Points lost of a task; draw: picks a pair of so many.
template <class Draw>
double points_lost(const std::vector<Pair>& pairs, const Draw& draw) {
  int64_t asked = 0, lost = 0;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const Pair& pair = pairs[draw(i, pairs.size())];
    asked += pair.asked;
    lost += pair.full - pair.policy;
  }
  return 100.0 * static_cast<double>(lost) / static_cast<double>(std::max<int64_t>(1, asked));
}

// Each task alike. Drawing n contexts again varies by (n - 1) / n of what n new ones would: what a
// draw differs by is widened by the root of the inverse.
Line::Loss loss_of(const PairsByTask& tasks) {
  Line::Loss loss;
  const auto count = static_cast<double>(tasks.size());
  std::vector<double> points;  // by task
  size_t fewest = tasks.front().size();
  for (const auto& pairs : tasks) {
    points.push_back(points_lost(pairs, [](size_t i, size_t) { return i; }));
    loss.points += points.back() / count;
    fewest = std::min(fewest, pairs.size());
    for (const Pair& pair : pairs) {
      loss.broken += pair.broken;
      loss.mended += pair.mended;
    }
  }
  if (fewest < 2) return loss;
  storefront::Random random(1);
  std::vector<double> drawn;
  for (int i = 0; i < kReplicates; ++i) {
    double sum = 0;
    for (size_t task = 0; task < tasks.size(); ++task) {
      const auto& pairs = tasks[task];
      const double lost = points_lost(
          pairs, [&](size_t, size_t n) { return random.below(static_cast<uint32_t>(n)); });
      const auto n = static_cast<double>(pairs.size());
      sum += points[task] + (lost - points[task]) * std::sqrt(n / (n - 1));
    }
    drawn.push_back(sum / count);
  }
  std::ranges::sort(drawn);
  loss.interval = {drawn[kReplicates * 25 / 1000], drawn[kReplicates * 975 / 1000 - 1]};
  return loss;
}

Line line_of(const std::vector<Outcome>& outcomes, const std::string& policy, double budget,
             const std::vector<Task>& tasks) {
  Line line{.policy = policy, .budget = budget};
  PairsByTask pairs;
  bool paired = true;
  double nats = 0;
  double chain_held = 0;
  int64_t predicted = 0, runs = 0, chains = 0;
  for (const Task& task : tasks) {
    int64_t asked = 0, exact = 0;
    std::vector<Pair> of_task;
    for (const Outcome& outcome : outcomes) {
      const OutcomeKey& key = outcome.key;
      if (key.policy != policy || key.budget != budget || !(key.task == task)) continue;
      for (const double x : outcome.nats) nats += x;
      predicted += std::ssize(outcome.nats);
      if (outcome.right.empty()) {
        chain_held += outcome.held;
        ++chains;
        continue;
      }
      line.reached = line.reached && outcome.reached;
      line.held += outcome.held;
      line.kept += outcome.kept;
      line.answer_tokens += outcome.answer_tokens;
      ++runs;
      const Outcome* full = find(outcomes, "full", 1, task, key.seed);
      paired =
          paired && full != nullptr && full->asked == outcome.asked && same_shape(*full, outcome);
      for (size_t i = 0; i < outcome.right.size(); ++i) {
        ++line.contexts;
        asked += std::ssize(outcome.right[i]);
        exact += ones(outcome.right[i]);
        if (paired) of_task.push_back(pair_of(full->right[i], outcome.right[i]));
      }
    }
    if (asked == 0) continue;
    ++line.tasks;
    line.asked += asked;
    line.exact += static_cast<double>(exact) / static_cast<double>(asked);
    pairs.push_back(std::move(of_task));
  }
  if (line.tasks > 0) line.exact /= line.tasks;
  const auto n = static_cast<double>(std::max<int64_t>(1, runs));
  line.held /= n;
  line.kept /= n;
  line.answer_tokens /= n;
  if (chains > 0) line.chain_held = chain_held / static_cast<double>(chains);
  if (predicted > 0) line.nats = nats / static_cast<double>(predicted);
  if (paired && !pairs.empty() && policy != "full") line.loss = loss_of(pairs);
  return line;
}

}  // namespace

std::vector<Task> tasks_of(const std::vector<Outcome>& outcomes) {
  std::vector<Task> tasks;
  for (const Outcome& outcome : outcomes) {
    if (std::ranges::find(tasks, outcome.key.task) == tasks.end()) {
      tasks.push_back(outcome.key.task);
    }
  }
  return tasks;
}

std::optional<double> full_rate(const std::vector<Outcome>& outcomes, const Task& task) {
  const Line line = line_of(outcomes, "full", 1, {task});
  if (line.asked == 0) return std::nullopt;
  return line.exact;
}

std::vector<Line> summarise(const std::vector<Outcome>& outcomes, const std::vector<Task>& tasks) {
  const std::vector<Task> all = tasks.empty() ? tasks_of(outcomes) : tasks;
  std::vector<std::pair<std::string, double>> wanted;
  for (const Outcome& outcome : outcomes) {
    std::pair<std::string, double> one{outcome.key.policy, outcome.key.budget};
    if (std::ranges::find(wanted, one) == wanted.end()) wanted.push_back(std::move(one));
  }
  std::vector<Line> lines;
  for (const auto& [policy, budget] : wanted) {
    Line line = line_of(outcomes, policy, budget, all);
    if (line.tasks > 0 || line.nats) lines.push_back(std::move(line));
  }
  return lines;
}

}  // namespace coppice::eviction
