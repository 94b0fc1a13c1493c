#include "policy_report.h"

#include <algorithm>
#include <cstdio>
#include <map>

#include "svg_chart.h"

namespace coppice::tools {
namespace {

using eviction::Line;
using eviction::Outcome;
using eviction::Task;
using nlohmann::ordered_json;

// A family that the base answers at least so often says what eviction loses of it.
constexpr double kKnown = 0.95;

std::string fixed(double x, int digits) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.*f", digits, x);
  return text;
}

std::string percent(double share, int digits = 1) { return fixed(100 * share, digits); }

bool is_h1_or_h2(const Task& task) {
  return task.haystack == families::Haystack::kH1 || task.haystack == families::Haystack::kH2;
}

ordered_json task_json(const Task& task) {
  return {{"family", families::info(task.family).name},
          {"haystack", families::haystack_name(task.haystack)},
          {"length", task.length},
          {"hops", task.hops}};
}

ordered_json line_json(const Line& line) {
  ordered_json json{{"policy", line.policy},
                    {"budget", line.budget},
                    {"tasks", line.tasks},
                    {"contexts", line.contexts},
                    {"samples", line.asked},
                    {"exact", line.exact},
                    {"held", line.held},
                    {"kept", line.kept},
                    {"answer_tokens", line.answer_tokens},
                    {"budget_reached", line.reached}};
  if (line.loss) {
    json["loss_points"] = line.loss->points;
    if (const auto& interval = line.loss->interval) {
      json["loss_interval"] = {interval->first, interval->second};
    }
    json["right_to_wrong"] = line.loss->broken;
    json["wrong_to_right"] = line.loss->mended;
  }
  if (line.nats) json["nats_per_token"] = *line.nats;
  return json;
}

std::vector<Line> lines_of(const std::vector<Outcome>& outcomes, const std::vector<Task>& tasks) {
  return tasks.empty() ? std::vector<Line>() : eviction::summarise(outcomes, tasks);
}

std::string table(const std::vector<Line>& lines) {
  std::string text =
      "| policy | budget % | held % | kept % | exact % | points lost | 95 % interval | right to "
      "wrong "
      "| wrong to right | tokens an answer |\n|---|---|---|---|---|---|---|---|---|---|\n";
  for (const Line& line : lines) {
    if (line.tasks == 0) continue;
    text += "| " + line.policy + " | " + fixed(100 * line.budget, 2) +
            (line.reached ? " | " : " (not reached) | ") + percent(line.held) + " | " +
            percent(line.kept) + " | " + percent(line.exact) + " | ";
    if (line.loss) {
      const auto& interval = line.loss->interval;
      text += fixed(line.loss->points, 2) + " | ";
      text += interval ? fixed(interval->first, 2) + " to " + fixed(interval->second, 2) : "-";
      text += " | " + std::to_string(line.loss->broken) + " | " + std::to_string(line.loss->mended);
    } else {
      text += "- | - | - | -";
    }
    text += " | " + fixed(line.answer_tokens, 1) + " |\n";
  }
  return text;
}

// A column for each task: exact and, in brackets, held, in per cent.
std::string by_task(const std::vector<Outcome>& outcomes, double budget) {
  std::vector<Task> tasks;
  for (const Task& task : eviction::tasks_of(outcomes)) {
    if (task.family != families::Family::kMarkov) tasks.push_back(task);
  }
  std::string text = "| policy |", rule = "\n|---|";
  for (const Task& task : tasks) {
    text += " " + task.name() + " |";
    rule += "---|";
  }
  text += rule + "\n";
  std::map<std::string, std::map<std::string, std::string>> cells;
  std::vector<std::string> policies;
  for (const Task& task : tasks) {
    for (const Line& line : eviction::summarise(outcomes, {task})) {
      if (line.budget != budget && line.policy != "full") continue;
      if (line.tasks == 0) continue;
      if (std::ranges::find(policies, line.policy) == policies.end()) {
        policies.push_back(line.policy);
      }
      cells[line.policy][task.name()] =
          percent(line.exact) + (line.policy == "full" ? "" : " (" + percent(line.held) + ")");
    }
  }
  for (const std::string& policy : policies) {
    text += "| " + policy + " |";
    for (const Task& task : tasks) {
      const auto cell = cells[policy].find(task.name());
      text.append(" ").append(cell == cells[policy].end() ? "-" : cell->second);
      text.append(" |");
    }
    text += "\n";
  }
  return text;
}

std::vector<double> budgets_of(const std::vector<Outcome>& outcomes) {
  std::vector<double> budgets;
  for (const Outcome& outcome : outcomes) {
    const double budget = outcome.key.budget;
    if (outcome.key.policy != "full" && std::ranges::find(budgets, budget) == budgets.end()) {
      budgets.push_back(budget);
    }
  }
  std::ranges::sort(budgets, std::greater<>());
  return budgets;
}

// Tasks with a haystack that the base answers nearly always.
std::vector<Task> known_tasks(const std::vector<Outcome>& outcomes) {
  std::vector<Task> known;
  for (const Task& task : eviction::tasks_of(outcomes)) {
    const auto rate = eviction::full_rate(outcomes, task);
    if (is_h1_or_h2(task) && rate && *rate >= kKnown) known.push_back(task);
  }
  return known;
}

std::string names(const std::vector<Task>& tasks) {
  std::string text;
  for (const Task& task : tasks) text.append(text.empty() ? "" : ", ").append(task.name());
  return text;
}

std::string nats_table(const std::vector<Outcome>& outcomes) {
  std::string text;
  for (const Line& line : eviction::summarise(outcomes, {})) {
    if (!line.nats) continue;
    text += "| " + line.policy + " | " + fixed(100 * line.budget, 2) + " | " +
            percent(line.chain_held) + " | " + fixed(*line.nats, 3) + " |\n";
  }
  if (text.empty()) return text;
  return "\n## Prediction of a chain's last quarter (markov)\n\n| policy | budget % | held % | "
         "nats a "
         "token |\n|---|---|---|---|\n" +
         text;
}

}  // namespace

ordered_json outcome_json(const Outcome& outcome) {
  const eviction::OutcomeKey& key = outcome.key;
  ordered_json json{{"policy", key.policy},   {"identity", key.identity},
                    {"budget", key.budget},   {"task", task_json(key.task)},
                    {"seed", key.seed},       {"right", outcome.right},
                    {"nats", outcome.nats},   {"held", outcome.held},
                    {"kept", outcome.kept},   {"answer_tokens", outcome.answer_tokens},
                    {"asked", outcome.asked}, {"reached", outcome.reached}};
  if (outcome.threshold) json["threshold"] = *outcome.threshold;
  return json;
}

Expected<Outcome> outcome_of(const std::string& line) {
  const ordered_json json = ordered_json::parse(line, nullptr, false);
  const auto wrong = [&] {
    return fail(ErrorCode::kCorrupt, "not an outcome: " + line.substr(0, 80));
  };
  if (json.is_discarded() || !json.is_object()) return wrong();
  try {
    Outcome outcome;
    outcome.key.policy = json.at("policy").get<std::string>();
    outcome.key.identity = json.at("identity").get<uint64_t>();
    outcome.key.budget = json.at("budget").get<double>();
    const ordered_json& task = json.at("task");
    const auto family = families::family_named(task.at("family").get<std::string>());
    const auto haystack = families::haystack_named(task.at("haystack").get<std::string>());
    if (!family || !haystack) return wrong();
    outcome.key.task = {*family, *haystack, task.at("length").get<int>(),
                        task.at("hops").get<int>()};
    outcome.key.seed = json.at("seed").get<uint64_t>();
    outcome.right = json.at("right").get<std::vector<std::string>>();
    outcome.nats = json.at("nats").get<std::vector<double>>();
    outcome.held = json.at("held").get<double>();
    outcome.kept = json.at("kept").get<double>();
    outcome.answer_tokens = json.at("answer_tokens").get<double>();
    outcome.asked = json.at("asked").get<uint64_t>();
    outcome.reached = json.at("reached").get<bool>();
    if (json.contains("threshold")) outcome.threshold = json.at("threshold").get<double>();
    return outcome;
  } catch (const nlohmann::json::exception&) {
    return wrong();
  }
}

ordered_json policy_json(const ReportHead& head, const std::vector<Outcome>& outcomes) {
  const auto lines_json = [](const std::vector<Line>& lines) {
    ordered_json list = ordered_json::array();
    for (const Line& line : lines) list.push_back(line_json(line));
    return list;
  };
  ordered_json known{{"tasks", ordered_json::array()}};
  for (const Task& task : known_tasks(outcomes)) known["tasks"].push_back(task.name());
  known["lines"] = lines_json(lines_of(outcomes, known_tasks(outcomes)));
  ordered_json each = ordered_json::array();
  for (const Task& task : eviction::tasks_of(outcomes)) {
    each.push_back(
        {{"task", task.name()}, {"lines", lines_json(eviction::summarise(outcomes, {task}))}});
  }
  return {{"date", head.date},
          {"machine", head.machine},
          {"model", head.model},
          {"command", head.command},
          {"window", head.window},
          {"sinks", head.sinks},
          {"all", lines_json(eviction::summarise(outcomes, {}))},
          {"known_h1_h2", std::move(known)},
          {"by_task", std::move(each)}};
}

std::string policy_markdown(const ReportHead& head, const std::vector<Outcome>& outcomes) {
  std::string text = "# Policies of eviction at equal bytes\n\n";
  text +=
      "- date: " + head.date + "\n- machine: " + head.machine + "\n- model: " + head.model +
      "\n- command: `" + head.command + "`\n- kept by every policy: the first " +
      std::to_string(head.sinks) + " and the last " + std::to_string(head.window) +
      " tokens (a gate file has its own)\n\n"
      "The context is read and compressed before the question is asked. Budget: of the bytes of "
      "the pages that the whole context takes; held: what it came to, for gates that the tree "
      "serves with overlay and probabilities. Lost: against the whole context on the same "
      "questions; the interval is that of a bootstrap over contexts. Each task counts alike.\n";
  text += "\n## All tasks\n\n" + table(eviction::summarise(outcomes, {}));
  const std::vector<Task> known = known_tasks(outcomes);
  if (!known.empty()) {
    text += "\n## Tasks of h1 and h2 that the whole context answers to " + percent(kKnown, 0) +
            " % or more\n\n" + names(known) + "\n\n" + table(eviction::summarise(outcomes, known));
  }
  for (const double budget : budgets_of(outcomes)) {
    text +=
        "\n## Exact answers by task at " + fixed(100 * budget, 2) +
        " %\n\nIn brackets what was held. A gate has one threshold for all tasks and holds more of "
        "the one and less of the other.\n\n" +
        by_task(outcomes, budget);
  }
  return text + nats_table(outcomes);
}

std::string policy_svg(const std::vector<Outcome>& outcomes) {
  std::vector<Task> tasks;
  for (const Task& task : eviction::tasks_of(outcomes)) {
    if (is_h1_or_h2(task)) tasks.push_back(task);
  }
  Chart chart{"Exact answers against bytes held, h1 and h2",
              "bytes held, % of the whole context",
              "exact answers, %",
              {}};
  std::vector<Line> lines = lines_of(outcomes, tasks);
  std::ranges::stable_sort(lines, {}, &Line::held);
  std::map<std::string, ChartSeries> series;
  std::vector<std::string> order;
  for (const Line& line : lines) {
    if (line.tasks == 0) continue;
    if (!series.contains(line.policy)) order.push_back(line.policy);
    series[line.policy].points.emplace_back(100 * line.held, 100 * line.exact);
  }
  std::ranges::sort(order);
  constexpr int kColours = 8;
  int next = 0;
  for (const std::string& policy : order) {
    ChartSeries& one = series[policy];
    one.name = policy;
    one.colour = next % kColours;
    one.dashed = next >= kColours;
    ++next;
    chart.series.push_back(one);
  }
  return svg_of(chart);
}

std::string outcome_text(const Outcome& outcome) {
  std::string text = outcome.key.policy + " at " + fixed(100 * outcome.key.budget, 2) + " %, " +
                     outcome.key.task.name() + ", seed " + std::to_string(outcome.key.seed) + ": ";
  if (!outcome.nats.empty()) {
    double sum = 0;
    for (const double x : outcome.nats) sum += x;
    text += fixed(sum / static_cast<double>(outcome.nats.size()), 3) + " nats a token";
  } else {
    int64_t asked = 0, exact = 0;
    for (const std::string& right : outcome.right) {
      asked += std::ssize(right);
      exact += std::count(right.begin(), right.end(), '1');
    }
    text += std::to_string(exact) + " of " + std::to_string(asked) + " exact";
  }
  return text + ", " + percent(outcome.held) + " % of the bytes";
}

}  // namespace coppice::tools
