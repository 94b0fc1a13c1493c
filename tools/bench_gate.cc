#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <unistd.h>

#include "arguments.h"
#include "base/splitmix.h"
#include "bench_commands.h"
#include "bench_flags.h"
#include "exit_code.h"
#include "gate_bench.h"
#include "model/gate_file.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

struct Flags {
  ModelFlags model;
  GateShape shape;
  int32_t rounds = 5;
  std::string random_gate;  // a kind; empty: --gate
  bool held = true;
};

// A gate with random weights that keeps everything: what deciding costs, apart from what it saves.
class RandomGate {
 public:
  static Expected<std::unique_ptr<RandomGate>> make(const std::string& model,
                                                    const std::string& kind);
  ~RandomGate() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  explicit RandomGate(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

Expected<std::unique_ptr<RandomGate>> RandomGate::make(const std::string& model,
                                                       const std::string& kind) {
  TRY(const auto checkpoint, model::Checkpoint::open(model));
  const model::ModelConfig& config = checkpoint->config();
  model::GateHeader header;
  header.kind = kind == "causal" ? model::GateKind::kCausal : model::GateKind::kPoint;
  header.hidden_size = config.hidden_size;
  header.num_hidden_layers = config.num_hidden_layers;
  header.num_key_value_heads = config.num_key_value_heads;
  if (header.kind == model::GateKind::kCausal) {
    header.heads = 2;
    header.head_dim = 16;
    header.reach = 16;
    header.rope_theta = 10000;
  }
  header.window = 16;
  header.sinks = 4;
  constexpr float kKeepsAll = -1000;
  header.tiers = {{{kKeepsAll, 1, 0}, {kKeepsAll, 1, 0}, {kKeepsAll, 1, 0}}};
  header.base = std::string(16, '0');  // taken by force
  header.note = "random weights";
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("coppice-gate-" + std::to_string(::getpid()) + ".safetensors"))
                               .string();
  uint64_t state = 1;
  TRY_STATUS(model::write_gate_file(path, header, [&](size_t, std::span<float> values) {
    for (float& value : values) {
      const auto bits = static_cast<double>(splitmix(state += kGoldenGamma) >> 11);
      value = static_cast<float>((bits * 0x1p-53 - 0.5) / 16);
    }
  }));
  return std::unique_ptr<RandomGate>(new RandomGate(path));
}

// Of paired rounds: off over gated.
Samples ratios(const Samples& off, const Samples& gated) {
  Samples out;
  for (size_t i = 0; i < off.count(); ++i) out.add(off.at(i) / gated.at(i));
  return out;
}

double over(int64_t a, int64_t b) {
  return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : 0;
}

ordered_json line_of(const Flags& flags, GateBench& bench) {
  const TierFigures &off = bench.off(), &gated = bench.gated();
  ordered_json json{{"shared", flags.shape.shared},
                    {"own", flags.shape.own},
                    {"users", flags.shape.users},
                    {"generate", flags.shape.generate},
                    {"rounds", off.prefill.count()}};
  json["prefix_bytes_off"] = off.prefix_bytes;
  json["prefix_bytes_gated"] = gated.prefix_bytes;
  json["prefix_bytes_ratio"] = over(off.prefix_bytes, gated.prefix_bytes);
  json["bytes_off"] = off.bytes;
  json["bytes_gated"] = gated.bytes;
  json["bytes_ratio"] = over(off.bytes, gated.bytes);
  ratios(off.attention, gated.attention).put(json, "attention_speedup");
  ratios(off.steps, gated.steps).put(json, "decode_speedup");
  // What a prefill takes under the gate over what it takes without.
  ratios(gated.prefill, off.prefill).put(json, "prefill_cost");
  if (flags.held) {
    json["held_shared"] = flags.shape.held_shared;
    json["held_own"] = flags.shape.held_own;
    json["held_generate"] = flags.shape.held_generate;
    json["held_at_once_off"] = off.at_once;
    json["held_at_once_gated"] = gated.at_once;
    json["held_at_once_ratio"] = over(gated.at_once, off.at_once);
  }
  return json;
}

void print(const ordered_json& json) {
  const auto x = [&](const char* key) { return json[key].get<double>(); };
  const auto n = [&](const char* key) { return json[key].get<long long>(); };
  print_text_line("%lld shared tokens, %lld of each of %lld users, %lld generated; medians of %lld",
                  n("shared"), n("own"), n("users"), n("generate"), n("rounds"));
  print_text_line("  shared prompt   %12lld bytes off, %12lld gated: off holds %.2f times as many",
                  n("prefix_bytes_off"), n("prefix_bytes_gated"), x("prefix_bytes_ratio"));
  print_text_line("  at the peak     %12lld bytes off, %12lld gated: off holds %.2f times as many",
                  n("bytes_off"), n("bytes_gated"), x("bytes_ratio"));
  print_text_line("  attention       %.2f times as fast while generating (%.2f to %.2f)",
                  x("attention_speedup"), x("attention_speedup_p10"), x("attention_speedup_p90"));
  print_text_line("  steps           %.2f times as fast while generating (%.2f to %.2f)",
                  x("decode_speedup"), x("decode_speedup_p10"), x("decode_speedup_p90"));
  print_text_line("  prefill         %.3f of the time without the gate (%.3f to %.3f)",
                  x("prefill_cost"), x("prefill_cost_p10"), x("prefill_cost_p90"));
  if (json.contains("held_at_once_ratio")) {
    print_text_line("  requests held   %lld off, %lld gated in the same bytes: %.2fx",
                    n("held_at_once_off"), n("held_at_once_gated"), x("held_at_once_ratio"));
  }
}

Status run(const Flags& flags) {
  TRY(EngineOptions options, options_of(flags.model));
  std::unique_ptr<RandomGate> random;
  if (!flags.random_gate.empty()) {
    TRY(random, RandomGate::make(options.model, flags.random_gate));
    options.gate = random->path();
    options.gate_force = true;
  }
  if (flags.shape.held_generate >= flags.shape.held_own) {
    return fail(ErrorCode::kInvalidArgument, "--held-generate must be less than --held-own");
  }
  if (options.gate.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "--gate: names no file and no policy; --random-gate point or causal makes one");
  }
  const KvTier tier = options.kv_tier.value_or(KvTier::kNormal);
  if (tier == KvTier::kOff) {
    return fail(ErrorCode::kInvalidArgument, "--kv-tier off: is what the others are held against");
  }
  const auto live = static_cast<int32_t>(std::max(flags.shape.users, flags.shape.held_users * 8));
  options.max_live = std::max(options.max_live, live);
  options.max_rows = std::max(options.max_rows, live + 1);
  TRY(const auto bench, GateBench::open(options, tier));
  const GateShape& shape = flags.shape;
  TRY_STATUS(bench->bench().fits("a round", "--shared, --own and --generate",
                                 shape.shared + shape.own + shape.generate,
                                 shape.shared + shape.users * (shape.own + shape.generate)));
  ProgressLine progress("measuring");
  for (int32_t i = 0; i < flags.rounds; ++i) {
    progress.show(i, flags.rounds, "rounds");
    TRY_STATUS(bench->round(shape));
  }
  if (flags.held) TRY_STATUS(bench->count_held(shape));
  ordered_json json = line_of(flags, *bench);
  json.update(machine_json(flags.model, options, bench->bench().info()));
  json["gate"] = bench->bench().info().gate;
  json["tier"] = kv_tier_name(tier);
  progress.clear();
  flags.model.json ? print_json_line(json) : print(json);
  return {};
}

}  // namespace

void add_bench_gate(CLI::App& bench, std::function<int()>* run_command) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "gate",
      "What a gate is worth while serving, against tier off in the same engine, by turns: bytes of "
      "a "
      "shared prompt and of its users, attention's time, requests held at once, cost of a prefill");
  const std::string group = "Shape";
  const auto add = [&](const char* name, int64_t& value, int64_t least, const std::string& help) {
    add_whole(*app, name, value, Bounds<int64_t>{least, int64_t{1} << 20},
              help + " (default " + std::to_string(value) + ")")
        ->group(group);
  };
  GateShape& shape = flags->shape;
  add("--shared", shape.shared, 1, "tokens of the prompt that all users share");
  add("--own", shape.own, 1, "tokens of each user's own");
  add("--users", shape.users, 1, "users at once");
  add("--generate", shape.generate, 1, "tokens of each answer");
  add("--held-shared", shape.held_shared, 1, "requests held at once: tokens that they share");
  add("--held-own", shape.held_own, 2, "and tokens of their own, ...");
  add("--held-generate", shape.held_generate, 1,
      "... of which generated: long enough that all that fit are at work together");
  add("--held-users", shape.held_users, 1, "how many the budget holds without the gate");
  app->add_flag_callback(
         "--no-held", [flags] { flags->held = false; }, "do not count requests held at once")
      ->group(group);
  app->add_option("--random-gate", flags->random_gate,
                  "instead of --gate: a point or causal gate of random weights that keeps "
                  "everything, for what deciding costs")
      ->check(CLI::IsMember({"point", "causal"}))
      ->type_name("KIND")
      ->group(group);
  add_whole(*app, "-r,--rounds", flags->rounds, Bounds<int32_t>{1, 10000},
            "times both tiers are measured (default 5)")
      ->group(group);
  add_model_flags(*app, flags->model);
  app->callback(
      [flags, run_command] { *run_command = [flags] { return exit_code_of(run(*flags)); }; });
}

}  // namespace coppice::tools
