#include "eval_policies.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <utility>

#include "arguments.h"
#include "base/file.h"
#include "interrupt.h"
#include "measured_on.h"
#include "model/gate_file.h"
#include "policy_report.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using eviction::Outcome;
using eviction::OutcomeKey;
using nlohmann::ordered_json;

constexpr double kLeastBudget = 0.1;  // per cent

// The outcomes of a directory: what was run, and what comes of it now.
class Results {
 public:
  // settings: what all outcomes of a directory have in common.
  static Expected<Results> open(const std::string& out, const ordered_json& settings);

  bool has(const OutcomeKey& key) const {
    return std::ranges::find(outcomes_, key, &Outcome::key) != outcomes_.end();
  }
  // What was run twice, by two commands at once, counts once.
  void take(Outcome outcome) {
    if (!has(outcome.key)) outcomes_.push_back(std::move(outcome));
  }
  Status add(const Outcome& outcome);
  const std::vector<Outcome>& all() const { return outcomes_; }
  Status write(const std::string& name, const std::string& text) const {
    return write_file((directory_ / name).string(), text);
  }
  bool kept() const { return !directory_.empty(); }

 private:
  std::filesystem::path file() const { return directory_ / "outcomes.jsonl"; }
  Status read(const ordered_json& settings);

  std::filesystem::path directory_;  // empty: nothing is kept
  std::vector<Outcome> outcomes_;
};

Expected<Results> Results::open(const std::string& out, const ordered_json& settings) {
  Results results;
  if (out.empty()) return results;
  results.directory_ = out;
  std::error_code error;
  std::filesystem::create_directories(results.directory_, error);
  if (error) return fail(ErrorCode::kInternal, "--out " + out + ": " + error.message());
  TRY_STATUS(results.read(settings));
  return results;
}

Status Results::read(const ordered_json& settings) {
  std::error_code error;
  std::string text;
  if (std::filesystem::exists(file(), error)) {
    TRY(text, read_file(file().string()));
  }
  // Nothing, or an interruption before there was anything.
  if (text.find('\n') == std::string::npos) {
    return write_file(file().string(), settings.dump() + "\n");
  }
  size_t begin = 0;
  for (size_t number = 1; begin < text.size(); ++number) {
    const size_t end = text.find('\n', begin);
    // What an interruption cut off is run again.
    if (end == std::string::npos) {
      TRY_STATUS(write_file(file().string(), text.substr(0, begin)));
      break;
    }
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (number == 1) {
      if (line == settings.dump()) continue;
      return fail(ErrorCode::kInvalidArgument, "--out " + directory_.string() +
                                                   ": holds a comparison with other settings, " +
                                                   line + "; give another directory");
    }
    auto outcome = outcome_of(line);
    if (!outcome) {
      return fail(outcome.error().code, file().string() + ", line " + std::to_string(number) +
                                            ": " + outcome.error().message);
    }
    take(std::move(*outcome));
  }
  return {};
}

Status Results::add(const Outcome& outcome) {
  take(outcome);
  if (!kept()) return {};
  std::ofstream stream(file(), std::ios::app);
  stream << outcome_json(outcome).dump() << '\n';
  stream.flush();
  if (!stream) return fail(ErrorCode::kInternal, file().string() + ": cannot be written");
  return {};
}

// Of what the command asks for, in its order: other policies of the directory are no part of it.
std::vector<Outcome> asked_for(const Results& results, const eviction::ComparisonOptions& options) {
  std::vector<Outcome> out;
  for (const eviction::PolicyPlan& policy : options.policies) {
    for (const double budget : options.budgets) {
      for (const Outcome& outcome : results.all()) {
        const OutcomeKey& key = outcome.key;
        const bool whole = policy.kind == eviction::PolicyPlan::Kind::kFull;
        if (key.policy != policy.name || key.identity != identity_of(options, policy)) continue;
        if (key.budget != (whole ? 1.0 : budget)) continue;
        if (whole && budget != options.budgets.front()) continue;
        if (std::ranges::find(options.tasks, key.task) == options.tasks.end()) continue;
        const uint64_t seed = key.seed - options.first_seed;
        if (seed < static_cast<uint64_t>(options.seeds)) out.push_back(outcome);
      }
    }
  }
  return out;
}

Status report(const PolicyFlags& flags, const PolicyComparison& comparison,
              const eviction::ComparisonOptions& options, const Results& results) {
  ReportHead head{.command = command_line(),
                  .model = comparison.engine.model,
                  .machine = processor_name(),
                  .date = today(),
                  .window = flags.window,
                  .sinks = flags.sinks};
  const std::vector<Outcome> outcomes = asked_for(results, options);
  const ordered_json summary{{"summary", policy_json(head, outcomes)}};
  std::fputs((comparison.json ? summary.dump() + "\n" : policy_markdown(head, outcomes)).c_str(),
             stdout);
  if (!results.kept()) return {};
  TRY_STATUS(results.write("report.json", policy_json(head, outcomes).dump(2) + "\n"));
  TRY_STATUS(results.write("report.md", policy_markdown(head, outcomes)));
  return results.write("accuracy.svg", policy_svg(outcomes));
}

Expected<ordered_json> settings_of(const PolicyFlags& flags, const PolicyComparison& comparison) {
  TRY(const auto checkpoint, model::Checkpoint::open(comparison.engine.model));
  TRY(const std::string base, model::base_hash(*checkpoint));
  // A change of what a task, a score or an outcome is takes another format.
  constexpr int kFormat = 3;
  return ordered_json{{"format", kFormat},
                      {"base", base},
                      {"numerics", comparison.numerics},
                      {"samples", comparison.samples},
                      {"per_context", comparison.per_context},
                      {"window", flags.window},
                      {"sinks", flags.sinks}};
}

}  // namespace

Status compare_policies(const PolicyFlags& flags, const PolicyComparison& comparison) {
  eviction::ComparisonOptions options;
  options.engine = comparison.engine;
  options.tasks = comparison.tasks;
  options.seeds = flags.seeds;
  options.samples = comparison.samples;
  options.per_context = comparison.per_context;
  options.protection = {.sinks = flags.sinks, .window = flags.window};
  options.first_seed = comparison.first_seed;
  for (const double percent : flags.budgets) {
    // Not a number fails every comparison.
    if (!(percent >= kLeastBudget && percent <= 100)) {
      return fail(ErrorCode::kInvalidArgument, "--budgets: takes per cents from 0.1 to 100");
    }
    if (std::ranges::find(options.budgets, percent / 100) != options.budgets.end()) {
      return fail(ErrorCode::kInvalidArgument,
                  "--budgets: " + ordered_json(percent).dump() + " is named twice");
    }
    options.budgets.push_back(percent / 100);
  }
  for (const std::string& text : flags.policies) {
    TRY(auto policy, eviction::find_policy(text, options.protection));
    const auto same = [&](const auto& other) { return other.name == policy.name; };
    if (std::ranges::any_of(options.policies, same)) {
      return fail(ErrorCode::kInvalidArgument,
                  "--policies: " + policy.name + " is named twice; NAME=FILE tells gates apart");
    }
    options.policies.push_back(std::move(policy));
  }
  TRY(const ordered_json settings, settings_of(flags, comparison));
  TRY(Results results, Results::open(flags.out, settings));
  const Interrupt interrupt;
  ProgressLine progress("eval");
  const eviction::ComparisonHooks hooks{
      .have = [&](const OutcomeKey& key) { return results.has(key); },
      .outcome =
          [&](const Outcome& outcome) {
            progress.clear();
            std::puts(
                (comparison.json ? outcome_json(outcome).dump() : outcome_text(outcome)).c_str());
            std::fflush(stdout);
            return results.add(outcome);
          },
      .give_up = [] { return Interrupt::came(); },
      .progress = [&](const std::string& what, int done,
                      int all) { progress.show(done, all, what); }};
  TRY_STATUS(eviction::compare(options, hooks));
  progress.clear();
  return report(flags, comparison, options, results);
}

void add_policy_flags(CLI::App& command, PolicyFlags& flags) {
  const std::string group = "Policies of eviction";
  command
      .add_option(
          "--policies", flags.policies,
          "compare what these keep of a context that is read before the question is known: " +
              eviction::policy_names())
      ->type_name("LIST")
      ->delimiter(',')
      ->group(group);
  command
      .add_option("--budgets", flags.budgets,
                  "bytes held, in per cent of the whole context's (default 50,25,12.5,6.25)")
      ->type_name("LIST")
      ->delimiter(',')
      ->group(group);
  add_whole(command, "--seeds", flags.seeds, Bounds<int>{1, 1000},
            "draws of every task (default 3)")
      ->group(group);
  add_whole(command, "--window", flags.window, Bounds<int>{1, 512},
            "last tokens that every policy keeps (default 16)")
      ->group(group);
  add_whole(command, "--sinks", flags.sinks, Bounds<int>{0, 64},
            "first tokens that every policy keeps (default 4)")
      ->group(group);
  command
      .add_option("--out", flags.out,
                  "directory for outcomes.jsonl, report.json, report.md and accuracy.svg; the same "
                  "command goes on from what is there")
      ->type_name("DIR")
      ->check(not_empty())
      ->group(group);
}

}  // namespace coppice::tools
