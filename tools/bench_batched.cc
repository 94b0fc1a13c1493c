#include <algorithm>
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

constexpr int32_t kMostTokens = 1 << 24, kMostSequences = 4096;

struct Flags {
  ModelFlags model;
  std::vector<int32_t> npp{128}, ntg{32}, npl{1, 8, 32};
  bool shared = false;
  int32_t repetitions = 3;
};

// `sequences` sequences of `prompt` tokens, each or one for all, then `generate` tokens for each.
struct Shape {
  int64_t prompt = 0, generate = 0, sequences = 0;
  bool shared = false;

  int64_t prompt_rows() const { return shared ? prompt : prompt * sequences; }
  int64_t generated() const { return generate * sequences; }
  int64_t kv() const { return prompt_rows() + generated(); }
  std::string name() const {
    return "PP " + std::to_string(prompt) + " TG " + std::to_string(generate) + " B " +
           std::to_string(sequences);
  }
};

std::vector<Shape> shapes_of(const Flags& flags) {
  std::vector<Shape> shapes;
  for (const int32_t pp : flags.npp) {
    for (const int32_t tg : flags.ntg) {
      for (const int32_t pl : flags.npl) shapes.push_back({pp, tg, pl, flags.shared});
    }
  }
  return shapes;
}

struct Times {
  Samples prompt, generate;  // seconds
  // Of the last repetition; empty unless asked for.
  Profile prompt_profile, generate_profile;
};

// The prompts are evaluated first, and held. Then every sequence takes a token of its own and
// generates: as many steps of a row for each. Salts keep apart what is not meant to be shared.
Status run_once(EngineBench& bench, const Shape& shape, Times& times) {
  bench.forget();
  const auto salt = [&](int64_t i) { return shape.shared ? std::string() : std::to_string(i); };
  const int64_t prompts = shape.shared ? 1 : shape.sequences;
  std::vector<std::vector<TokenId>> prompt;
  std::vector<Job> jobs;
  for (int64_t i = 0; i < prompts; ++i) {
    prompt.push_back(bench.random_tokens(shape.prompt));
    jobs.push_back({prompt.back(), salt(i), 1});
  }
  bench.engine().reset_profile();
  TRY(const double prompt_seconds, bench.run(std::move(jobs), shape.prompt_rows()));
  times.prompt_profile = bench.engine().profile();
  jobs = {};
  const std::vector<TokenId> first = bench.different_tokens(shape.sequences);
  for (int64_t i = 0; i < shape.sequences; ++i) {
    std::vector<TokenId> tokens = prompt[static_cast<size_t>(i % prompts)];
    tokens.push_back(first[static_cast<size_t>(i)]);
    jobs.push_back({std::move(tokens), salt(i), static_cast<int32_t>(shape.generate)});
  }
  bench.engine().reset_profile();
  TRY(const double generate_seconds, bench.run(std::move(jobs), shape.generated()));
  times.generate_profile = bench.engine().profile();
  times.prompt.add(prompt_seconds);
  times.generate.add(generate_seconds);
  return {};
}

ordered_json line_of(const Shape& shape, const Times& times) {
  const double pp = times.prompt.median(), tg = times.generate.median();
  ordered_json json{{"pp", shape.prompt},
                    {"tg", shape.generate},
                    {"pl", shape.sequences},
                    {"is_pp_shared", shape.shared},
                    {"n_kv", shape.kv()}};
  times.prompt.put(json, "t_pp");
  json["speed_pp"] = static_cast<double>(shape.prompt_rows()) / pp;
  times.generate.put(json, "t_tg");
  json["speed_tg"] = static_cast<double>(shape.generated()) / tg;
  json["t"] = pp + tg;
  json["speed"] = static_cast<double>(shape.kv()) / (pp + tg);
  json["repetitions"] = times.prompt.count();
  return json;
}

void print_row(const ordered_json& json) {
  print_text_line(
      "|%6d | %6d | %4d | %6d | %8.3f | %8.2f | %8.3f | %8.2f | %8.3f | %8.2f |",
      json["pp"].get<int>(), json["tg"].get<int>(), json["pl"].get<int>(), json["n_kv"].get<int>(),
      json["t_pp"].get<double>(), json["speed_pp"].get<double>(), json["t_tg"].get<double>(),
      json["speed_tg"].get<double>(), json["t"].get<double>(), json["speed"].get<double>());
  for (const char* phase : {"pp", "tg"}) {
    const std::string key = std::string("profile_") + phase;
    if (json.contains(key)) print_text_line("%s: %s", phase, profile_text(json[key]).c_str());
  }
}

void print_head() {
  print_text_line("|%6s | %6s | %4s | %6s | %8s | %8s | %8s | %8s | %8s | %8s |", "PP", "TG", "B",
                  "N_KV", "T_PP s", "S_PP t/s", "T_TG s", "S_TG t/s", "T s", "S t/s");
  print_text_line("|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s|", "-------", "--------", "------", "--------",
                  "----------", "----------", "----------", "----------", "----------",
                  "----------");
}

Status fits(const EngineBench& bench, const Shape& shape) {
  if (shape.sequences > bench.info().vocab_size) {
    return fail(ErrorCode::kInvalidArgument,
                "--npl " + std::to_string(shape.sequences) +
                    " needs as many different tokens; this model's vocabulary has " +
                    std::to_string(bench.info().vocab_size));
  }
  return bench.fits(shape.name(), "--npp and --ntg", shape.prompt + shape.generate + 1, shape.kv());
}

Status run(const Flags& flags) {
  TRY(EngineOptions options, options_of(flags.model));
  const int32_t most = *std::max_element(flags.npl.begin(), flags.npl.end());
  // A batch of --npl sequences is live at once, or it is another measurement.
  options.max_live = std::max(options.max_live, most);
  options.max_rows = std::max(options.max_rows, most + 1);
  TRY(const auto bench, EngineBench::open(options));
  const std::vector<Shape> shapes = shapes_of(flags);
  for (const Shape& shape : shapes) TRY_STATUS(fits(*bench, shape));
  const ordered_json machine = machine_json(flags.model, options, bench->info());
  Ceilings ceilings;
  if (options.profile) {
    TRY(ceilings, ceilings_for(options));
  }
  if (!flags.model.json) print_head();
  ProgressLine progress("measuring");
  Times warm_up;
  const int64_t first = std::min<int64_t>(16, shapes.front().prompt);
  TRY_STATUS(run_once(*bench, {first, 1, most, flags.shared}, warm_up));
  int64_t done = 0;
  const auto total = static_cast<int64_t>(shapes.size()) * flags.repetitions;
  for (const Shape& shape : shapes) {
    Times times;
    for (int32_t i = 0; i < flags.repetitions; ++i) {
      progress.show(done++, total, shape.name());
      TRY_STATUS(run_once(*bench, shape, times));
    }
    ordered_json json = line_of(shape, times);
    json.update(machine);
    if (options.profile) {
      TRY_STATUS(raise_ceilings(ceilings));
      json["profile_pp"] = profile_json(times.prompt_profile, ceilings);
      json["profile_tg"] = profile_json(times.generate_profile, ceilings);
    }
    progress.clear();
    flags.model.json ? print_json_line(json) : print_row(json);
  }
  return {};
}

}  // namespace

void add_bench_batched(CLI::App& bench, std::function<int()>* run_command) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "batched",
      "Many sequences of random tokens: B prompts of PP tokens, then TG tokens for each, as "
      "llama-batched-bench means them (its single-dash spellings are taken too); medians");
  const std::string group = "Cases (every combination)";
  const Bounds<int32_t> tokens{1, kMostTokens};
  add_wholes(*app, "--npp", flags->npp, tokens, "tokens of a prompt")->group(group);
  add_wholes(*app, "--ntg", flags->ntg, tokens, "tokens generated for each sequence")->group(group);
  add_wholes(*app, "--npl", flags->npl, Bounds<int32_t>{1, kMostSequences}, "sequences at once")
      ->group(group);
  app->add_flag("--pps", flags->shared,
                "one prompt, shared by all sequences (default: each has its own)")
      ->group(group);
  add_whole(*app, "-r,--repetitions", flags->repetitions, Bounds<int32_t>{1, 10000},
            "times each case is measured (default 3)")
      ->group(group);
  add_model_flags(*app, flags->model);
  add_profile_flag(*app, flags->model.profile,
                   "of each case's last repetition, prompts and generation apart");
  app->callback(
      [flags, run_command] { *run_command = [flags] { return exit_code_of(run(*flags)); }; });
}

}  // namespace coppice::tools
