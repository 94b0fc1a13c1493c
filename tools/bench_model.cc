#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "arguments.h"
#include "bench_commands.h"
#include "bench_flags.h"
#include "engine_bench.h"
#include "exit_code.h"
#include "model_flags.h"
#include "profile_report.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;
using Job = EngineBench::Job;

constexpr int64_t kMostTokens = 1 << 24;
constexpr int64_t kWarmUpTokens = 16;

struct Flags {
  ModelFlags model;
  std::vector<int64_t> prompt{512}, generate{128}, depth{0};
  int32_t repetitions = 5;
};

// One test: prompt tokens processed, or tokens generated, after `depth` tokens.
struct Test {
  int64_t prompt = 0, generate = 0, depth = 0;

  std::string name() const {
    const std::string what =
        prompt > 0 ? "pp" + std::to_string(prompt) : "tg" + std::to_string(generate);
    return what + (depth > 0 ? " @ d" + std::to_string(depth) : "");
  }
  int64_t tokens() const { return prompt + generate; }
};

std::vector<Test> tests_of(const Flags& flags) {
  std::vector<Test> tests;
  for (const int64_t depth : flags.depth) {
    for (const int64_t n : flags.prompt) {
      if (n > 0) tests.push_back({n, 0, depth});
    }
    for (const int64_t n : flags.generate) {
      if (n > 0) tests.push_back({0, n, depth});
    }
  }
  return tests;
}

std::vector<TokenId> joined(std::vector<TokenId> first, const std::vector<TokenId>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// A prompt: its rows and one token drawn from the last of them. Generation: a first token, then as
// many steps of one row.
Expected<double> run_once(EngineBench& bench, const Test& test, const std::vector<TokenId>& context,
                          TokenId first) {
  const bool prefill = test.prompt > 0;
  std::vector<TokenId> fresh = bench.random_tokens(prefill ? test.prompt : 1);
  fresh.front() = first;
  Job job{joined(context, fresh), "", static_cast<int32_t>(prefill ? 1 : test.generate)};
  std::vector<Job> jobs;
  jobs.push_back(std::move(job));
  return bench.run(std::move(jobs), test.tokens());
}

// Tokens per second of every repetition. What stands before the timed tokens is evaluated once and
// held; what a repetition adds begins with a token that none before it began with, so that nothing
// of it is held.
Expected<Samples> measure(EngineBench& bench, const Test& test, int32_t repetitions) {
  bench.forget();
  const std::vector<TokenId> context = bench.random_tokens(test.depth);
  if (test.depth > 0) {
    TRY_STATUS(bench.run({{context, "", 1}}, test.depth));
  }
  const Test warm_up{std::min(test.prompt, kWarmUpTokens), std::min(test.generate, kWarmUpTokens),
                     test.depth};
  const std::vector<TokenId> firsts = bench.different_tokens(repetitions + 1);
  TRY_STATUS(run_once(bench, warm_up, context, firsts.back()));
  Samples rates;
  for (int32_t i = 0; i < repetitions; ++i) {
    bench.engine().reset_profile();
    TRY(const double seconds, run_once(bench, test, context, firsts[static_cast<size_t>(i)]));
    rates.add(static_cast<double>(test.tokens()) / seconds);
  }
  return rates;
}

ordered_json line_of(const Test& test, const Samples& rates) {
  ordered_json json{{"test", test.name()},
                    {"n_prompt", test.prompt},
                    {"n_gen", test.generate},
                    {"n_depth", test.depth},
                    {"repetitions", rates.count()}};
  rates.put(json, "tokens_per_second");
  json["ms"] = 1e3 * static_cast<double>(test.tokens()) / rates.median();
  return json;
}

Status run(const Flags& flags) {
  const std::vector<Test> tests = tests_of(flags);
  if (tests.empty()) {
    return fail(ErrorCode::kInvalidArgument, "-p and -n are both 0; one of them takes 1 or more");
  }
  TRY(const EngineOptions options, options_of(flags.model));
  TRY(const auto bench, EngineBench::open(options));
  for (const Test& test : tests) {
    const int64_t longest = test.depth + test.tokens() + 1;
    // Every repetition leaves its tokens behind until their room is needed.
    TRY_STATUS(bench->fits(test.name(), "-p, -n and -d", longest, longest));
  }
  if (flags.repetitions >= bench->info().vocab_size) {
    return fail(ErrorCode::kInvalidArgument,
                "--repetitions is " + std::to_string(flags.repetitions) +
                    "; every one begins with a token of its own, and the model has " +
                    std::to_string(bench->info().vocab_size));
  }
  const ordered_json machine = machine_json(flags.model, options, bench->info());
  if (!flags.model.json) {
    print_text_line("%s: weights %s, %s keys and values, %d threads, %s", options.model.c_str(),
                    format_size(bench->info().weight_bytes).c_str(), flags.model.kv_type.c_str(),
                    machine["threads"].get<int>(), machine["isa"].get<std::string>().c_str());
    print_text_line("%-20s %12s %12s %12s %12s", "test", "tokens/s", "p10", "p90", "ms");
  }
  Ceilings ceilings;
  if (options.profile) {
    TRY(ceilings, ceilings_for(options));
  }
  ProgressLine progress("measuring");
  int64_t done = 0;
  for (const Test& test : tests) {
    progress.show(done++, static_cast<int64_t>(tests.size()), test.name());
    TRY(const Samples rates, measure(*bench, test, flags.repetitions));
    ordered_json json = line_of(test, rates);
    json.update(machine);
    if (options.profile) {
      TRY_STATUS(raise_ceilings(ceilings));
      json["profile"] = profile_json(bench->engine().profile(), ceilings);
    }
    progress.clear();
    if (flags.model.json) {
      print_json_line(json);
    } else {
      print_text_line("%-20s %12.2f %12.2f %12.2f %12.1f", test.name().c_str(), rates.median(),
                      rates.quantile(0.1), rates.quantile(0.9), json["ms"].get<double>());
      if (options.profile) print_text_line("%s", profile_text(json["profile"]).c_str());
    }
  }
  return {};
}

}  // namespace

void add_bench_model(CLI::App& bench, std::function<int()>* run_command) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "model",
      "Tokens per second of one sequence of random tokens: prompt processing (pp) and generation "
      "(tg) at depths, as llama-bench means them; medians with p10 and p90");
  const std::string group = "Tests";
  const Bounds<int64_t> bounds{0, kMostTokens};
  add_wholes(*app, "-p,--n-prompt", flags->prompt, bounds, "prompt tokens; 0: no such test")
      ->group(group);
  add_wholes(*app, "-n,--n-gen", flags->generate, bounds, "tokens generated; 0: no such test")
      ->group(group);
  add_wholes(*app, "-d,--n-depth", flags->depth, bounds,
             "tokens that the sequence holds before; not timed")
      ->group(group);
  add_whole(*app, "-r,--repetitions", flags->repetitions, Bounds<int32_t>{1, 10000},
            "times each test is measured, after a warm-up (default 5)")
      ->group(group);
  add_model_flags(*app, flags->model);
  add_profile_flag(*app, flags->model.profile, "of each test's last repetition");
  app->callback(
      [flags, run_command] { *run_command = [flags] { return exit_code_of(run(*flags)); }; });
}

}  // namespace coppice::tools
