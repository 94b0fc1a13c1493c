#include "eval.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "arguments.h"
#include "base/file.h"
#include "coppice/engine.h"
#include "eval/family_cases.h"
#include "eval/storefront_cases.h"
#include "eval_policies.h"
#include "exit_code.h"
#include "interrupt.h"
#include "model_flags.h"
#include "open_engine.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;
using storefront::Case;
using storefront::CaseOptions;

struct EvalFlags {
  ModelFlags model;
  std::vector<std::string> tasks{"storefront"};
  std::vector<int> facts{16};          // storefront
  std::vector<int> lengths{512};       // families
  std::vector<std::string> haystacks;  // families; empty: each its own
  int hops = 2;                        // variables
  int samples = 500;
  int per_shop = 32;
  std::string write_batch;
  PolicyFlags policies;
};

// --seed names the shops; the answers are greedy and need none.
uint64_t task_seed(const EvalFlags& flags) { return flags.model.seed.value_or(1); }

// Longer than any right answer of a shop, so that one that runs on counts as wrong.
constexpr int32_t kMaxAnswerTokens = 16;
// Likewise for any case: what its own answer takes and a few more.
int32_t most_tokens(const Case& c) {
  return std::max(kMaxAnswerTokens, families::count_tokens(c.answer) + 4);
}

class AnswerCollector : public Observer {
 public:
  void on_finish(const Result& result, std::string_view) override { result_ = result; }
  const Result& result() const { return result_; }

 private:
  Result result_;
};

struct Score {
  int64_t asked = 0, exact = 0;
  double rate() const {
    return asked > 0 ? static_cast<double>(exact) / static_cast<double>(asked) : 0.0;
  }
};

// Scores by type; the key "" holds all.
Expected<std::map<std::string, Score>> ask(Engine& engine, const std::vector<Case>& cases,
                                           ProgressLine& progress) {
  std::vector<std::shared_ptr<AnswerCollector>> answers;
  for (const Case& c : cases) {
    Request request;
    request.prompt = c.prompt;
    request.sampling.max_tokens = most_tokens(c);
    answers.push_back(std::make_shared<AnswerCollector>());
    TRY(const RequestId id, engine.submit(std::move(request), answers.back()));
    TRY_STATUS(Interrupt::check());
    static_cast<void>(id);
  }
  engine.run([] { return Interrupt::came(); });
  TRY_STATUS(Interrupt::check());
  std::map<std::string, Score> scores;
  for (size_t i = 0; i < cases.size(); ++i) {
    const Result& result = answers[i]->result();
    if (result.error) return fail(*result.error);
    const bool exact =
        result.finish_reason == FinishReason::kStop && result.text == cases[i].answer;
    for (const std::string& key : {std::string(), std::string(cases[i].type)}) {
      ++scores[key].asked;
      scores[key].exact += exact ? 1 : 0;
    }
  }
  progress.clear();
  return scores;
}

Expected<ordered_json> storefront_task(Engine& engine, const EvalFlags& flags, int facts) {
  ProgressLine progress("storefront, " + std::to_string(facts) + " facts");
  progress.show(0, flags.samples);
  CaseOptions options{task_seed(flags), facts, flags.samples, flags.per_shop, false};
  TRY(auto open, ask(engine, storefront::cases(options), progress));
  options.closed_book = true;
  TRY(auto closed, ask(engine, storefront::cases(options), progress));
  ordered_json by_type;
  for (const auto& [type, score] : open) {
    if (type.empty()) continue;
    by_type[type] = {
        {"samples", score.asked}, {"exact", score.exact}, {"exact_rate", score.rate()}};
  }
  const Score all = open[""];
  return ordered_json{{"task", "storefront"},         {"facts", facts},
                      {"samples", all.asked},         {"exact", all.exact},
                      {"exact_rate", all.rate()},     {"closed_book_rate", closed[""].rate()},
                      {"by_type", std::move(by_type)}};
}

// Where a family's facts stand: those levels of --haystack that it has; nothing: its own. One that
// has one only keeps it.
Expected<std::vector<std::optional<families::Haystack>>> levels_of(
    const EvalFlags& flags, const families::FamilyInfo& info) {
  std::vector<std::optional<families::Haystack>> levels;
  for (const std::string& name : flags.haystacks) {
    const auto level = families::haystack_named(name);
    if (!level) {
      return fail(ErrorCode::kInvalidArgument, "--haystack: no " + name + " (h0 to h3)");
    }
    if (!info.fixed_haystack && families::has_level(info, *level)) levels.push_back(level);
  }
  if (!levels.empty()) return levels;
  if (!info.fixed_haystack && !flags.haystacks.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--haystack " + join_list(flags.haystacks) + ": " +
                                                 std::string(info.name) + " has none");
  }
  levels.push_back(std::nullopt);
  return levels;
}

// A family at every length and level.
Expected<std::vector<families::CaseOptions>> family_options(const EvalFlags& flags,
                                                            families::Family family) {
  TRY(const auto levels, levels_of(flags, families::info(family)));
  std::vector<families::CaseOptions> all;
  for (const int length : flags.lengths) {
    for (const std::optional<families::Haystack>& level : levels) {
      families::CaseOptions& options = all.emplace_back();
      options.seed = task_seed(flags);
      options.family = family;
      options.samples = flags.samples;
      options.per_context = flags.per_shop;
      options.task.tokens = length;
      options.task.hops = flags.hops;
      options.task.haystack = level;
    }
  }
  return all;
}

Expected<ordered_json> family_task(Engine& engine, const families::CaseOptions& options) {
  const families::FamilyInfo& info = families::info(options.family);
  const std::string name(info.name);
  ProgressLine progress(name + ", " + std::to_string(options.task.tokens) + " tokens");
  progress.show(0, options.samples);
  TRY(auto scores, ask(engine, families::cases(options), progress));
  const Score all = scores[""];
  ordered_json line{
      {"task", name},
      {"length", options.task.tokens},
      {"haystack", families::haystack_name(options.task.haystack.value_or(info.haystack))}};
  if (options.family == families::Family::kVariables) line["hops"] = options.task.hops;
  line["samples"] = all.asked;
  line["exact"] = all.exact;
  line["exact_rate"] = all.rate();
  return line;
}

void print(const ordered_json& line, bool json) {
  if (json) {
    std::puts(line.dump().c_str());
    return;
  }
  if (line.contains("length")) {
    std::printf("%s, %d tokens, %s: %lld of %lld exact (%.1f %%)\n",
                line["task"].get<std::string>().c_str(), line["length"].get<int>(),
                line["haystack"].get<std::string>().c_str(), line["exact"].get<long long>(),
                line["samples"].get<long long>(), 100 * line["exact_rate"].get<double>());
    return;
  }
  std::printf("%s, %d facts: %lld of %lld exact (%.1f %%), closed book %.1f %%\n",
              line["task"].get<std::string>().c_str(), line["facts"].get<int>(),
              line["exact"].get<long long>(), line["samples"].get<long long>(),
              100 * line["exact_rate"].get<double>(), 100 * line["closed_book_rate"].get<double>());
  for (const auto& [type, score] : line["by_type"].items()) {
    std::printf("  %-8s %lld of %lld\n", type.c_str(), score["exact"].get<long long>(),
                score["samples"].get<long long>());
  }
}

// nullopt: storefront.
using Tasks = std::vector<std::optional<families::Family>>;

Expected<Tasks> tasks_of(const EvalFlags& flags) {
  Tasks tasks;
  for (const std::string& name : flags.tasks) {
    if (name == "storefront") {
      tasks.push_back(std::nullopt);
      continue;
    }
    const auto family = families::family_named(name);
    if (family == families::Family::kMarkov && flags.policies.policies.empty()) {
      return fail(ErrorCode::kInvalidArgument,
                  "--tasks: markov has no questions (--policies compares how it is predicted)");
    }
    if (!family) {
      std::string known = "storefront";
      for (const families::FamilyInfo& info : families::all_families()) {
        if (info.family != families::Family::kMarkov) known += ", " + std::string(info.name);
      }
      return fail(ErrorCode::kInvalidArgument, "--tasks: no task " + name + " (" + known + " are)");
    }
    tasks.push_back(family);
  }
  return tasks;
}

// The same questions as lines for `generate --batch`; "expected" is for the reader of its output.
Status write_batch(const EvalFlags& flags, const Tasks& tasks) {
  std::string lines;
  const auto write = [&](const std::vector<Case>& cases) {
    for (const Case& c : cases) {
      const ordered_json id{{"question", c.question}, {"expected", c.answer}};
      lines += ordered_json{{"id", id.dump()}, {"prompt", c.prompt}, {"max_tokens", most_tokens(c)}}
                   .dump() +
               "\n";
    }
  };
  for (const std::optional<families::Family>& task : tasks) {
    if (!task) {
      for (const int facts : flags.facts) {
        write(storefront::cases({task_seed(flags), facts, flags.samples, flags.per_shop, false}));
      }
      continue;
    }
    TRY(const auto all, family_options(flags, *task));
    for (const families::CaseOptions& options : all) write(families::cases(options));
  }
  if (flags.write_batch != "-") return write_file(flags.write_batch, lines);
  std::fwrite(lines.data(), 1, lines.size(), stdout);  // judged at the end of every command
  return {};
}

// `--policies`: families alone, at every length.
Status compare(const EvalFlags& flags, const Tasks& tasks, const EngineOptions& engine) {
  const ModelFlags& model = flags.model;
  if (!model.gate.empty() || !model.kv_tier.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "--gate and --kv-tier do not go with --policies, which names gates itself");
  }
  PolicyComparison comparison{.engine = engine,
                              .tasks = {},
                              .numerics = model.dtype + " " + model.weights + " " + model.kv_type,
                              .first_seed = task_seed(flags),
                              .samples = flags.samples,
                              .per_context = flags.per_shop,
                              .json = flags.model.json};
  for (const std::optional<families::Family>& task : tasks) {
    if (!task) {
      return fail(ErrorCode::kInvalidArgument,
                  "--tasks: policies are compared on families; system-prompt is a storefront");
    }
    TRY(const auto all, family_options(flags, *task));
    const families::Haystack own = families::info(*task).haystack;
    for (const families::CaseOptions& options : all) {
      comparison.tasks.push_back(
          {*task, options.task.haystack.value_or(own), options.task.tokens, options.task.hops});
    }
  }
  return compare_policies(flags.policies, comparison);
}

Status evaluate(const EvalFlags& flags) {
  TRY(const Tasks tasks, tasks_of(flags));
  if (!flags.write_batch.empty()) return write_batch(flags, tasks);
  TRY(EngineOptions options, options_of(flags.model));
  if (!flags.policies.policies.empty()) return compare(flags, tasks, options);
  if (!flags.policies.out.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--out: keeps what --policies came to; name some");
  }
  options.max_queued = std::max(options.max_queued, flags.samples);
  TRY(const std::unique_ptr<Engine> engine, open_engine(options));
  const Interrupt interrupt;
  const auto show = [&](const ordered_json& line) {
    print(line, flags.model.json);
    std::fflush(stdout);  // an interruption takes nothing of what was finished
  };
  for (const std::optional<families::Family>& task : tasks) {
    for (const int facts : task ? std::vector<int>() : flags.facts) {
      TRY(const ordered_json line, storefront_task(*engine, flags, facts));
      show(line);
    }
    if (!task) continue;
    TRY(const auto all, family_options(flags, *task));
    for (const families::CaseOptions& asked : all) {
      TRY(const ordered_json line, family_task(*engine, asked));
      show(line);
    }
  }
  return {};
}

}  // namespace

void add_eval(CLI::App& app, std::function<int()>* run) {
  const auto flags = std::make_shared<EvalFlags>();
  CLI::App* command = app.add_subcommand("eval", "tasks with known answers, scored");
  const std::string group = "Tasks";
  command
      ->add_option("--tasks", flags->tasks,
                   "which: storefront (default), or families: needle, multi-key, multi-value, "
                   "multi-query, uuid, variables, lookup, counting, system-prompt, conditioned, "
                   "copy")
      ->type_name("LIST")
      ->delimiter(',')
      ->group(group);
  command->add_option("--facts", flags->facts, "facts in a shop's text (default 16)")
      ->type_name("LIST")
      ->delimiter(',')
      ->check(CLI::Range(1, storefront::kMaxFacts))
      ->group(group);
  add_wholes(*command, "--length", flags->lengths,
             Bounds<int>{families::kMinTokens, families::kMaxTokens},
             "tokens of a family's contexts (default 512)")
      ->group(group);
  command
      ->add_option(
          "--haystack", flags->haystacks,
          "what stands between a family's facts: h0 other words, h1 another form, h2 facts "
          "alike, h3 nothing (default: each family's own)")
      ->type_name("LIST")
      ->delimiter(',')
      ->group(group);
  add_whole(*command, "--hops", flags->hops, Bounds<int>{1, families::kMaxHops},
            "links of variables (default 2)")
      ->group(group);
  add_whole(*command, "--samples", flags->samples, Bounds<int>{1, 1 << 20},
            "questions in all (default 500)")
      ->group(group);
  add_whole(*command, "--per-shop", flags->per_shop, Bounds<int>{1, storefront::kMaxFacts},
            "most questions to one shop (default 32)")
      ->group(group);
  command
      ->add_option("--write-batch", flags->write_batch,
                   "write the questions for `generate --batch` instead of asking them; "
                   "- is standard output")
      ->type_name("FILE")
      ->check(not_empty())
      ->group(group);
  add_policy_flags(*command, flags->policies);
  add_model_flags(*command, flags->model);
  command->callback([flags, run] {
    *run = [flags] {
      const Status status = evaluate(*flags);
      return status ? static_cast<int>(kExitOk) : report(status.error());
    };
  });
}

}  // namespace coppice::tools
