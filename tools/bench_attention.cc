#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "arguments.h"
#include "attention_measure.h"
#include "attention_presets.h"
#include "attention_spec.h"
#include "attention_summary.h"
#include "bench_commands.h"
#include "bench_flags.h"
#include "exit_code.h"
#include "interrupt.h"
#include "model_flags.h"
#include "progress.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

constexpr int32_t kMostSequences = 32768, kMostTokens = 1 << 24;
constexpr int32_t kMostHeads = 1024, kMostHeadDim = 256;

struct Flags {
  AttentionSpec spec;
  std::string preset;
  MachineFlags machine;
  Effort effort;
  bool json = false;
  // Given, and not left at the default.
  bool shape_given = false, tree_given = false, heads_given = false, kv_heads_given = false;
};

Error refused(const std::string& message) { return {ErrorCode::kInvalidArgument, message}; }

// One row of the flags' own, or the preset's with the flags' heads and types where given.
Expected<std::vector<PresetRow>> rows_of(const Flags& flags) {
  if (flags.tree_given && flags.shape_given) {
    return fail(refused("--tree accepts no --batch, --shared or --private beside it"));
  }
  if (flags.tree_given && flags.spec.tree.empty()) {
    return fail(refused("--tree accepts total nodes per level / tokens per node"));
  }
  if (flags.preset.empty()) return std::vector<PresetRow>{{"", "", flags.spec}};
  if (flags.tree_given || flags.shape_given) {
    return fail(refused("--preset accepts no --batch, --shared, --private or --tree beside it"));
  }
  std::vector<PresetRow> rows = attention_preset(flags.preset);
  if (rows.empty()) {
    return fail(refused("--preset is \"" + flags.preset + "\"; it takes " +
                        std::string(kAttentionPresets)));
  }
  for (PresetRow& row : rows) {
    if (flags.heads_given) row.spec.heads = flags.spec.heads;
    if (flags.kv_heads_given) row.spec.kv_heads = flags.spec.kv_heads;
    row.spec.head_dim = flags.spec.head_dim;
    row.spec.kv_type = flags.spec.kv_type;
  }
  return rows;
}

void print_all_keys(const ordered_json& json) {
  for (const auto& [key, value] : json.items()) {
    print_text_line("%-32s %s", key.c_str(), value.dump().c_str());
  }
}

constexpr const char* kTableHead = "%-52s %10s %10s %10s %10s %8s %6s %6s";

void print_table_row(const ordered_json& json) {
  const std::string name = json["name"].get<std::string>();
  if (json.contains("skipped")) {
    print_text_line("%-52s skipped: %s", name.c_str(), json["skipped"].get<std::string>().c_str());
    return;
  }
  const auto us = [&](const char* key) {
    return json[key].is_null() ? std::string("-") : std::to_string(json[key].get<int64_t>());
  };
  print_text_line("%-52s %10s %10s %10s %10s %7.2fx %6.2f %6.2f", name.c_str(),
                  us("two_phase_us").c_str(), us("per_sequence_us").c_str(),
                  us("per_sequence_seq_outer_us").c_str(), us("per_sequence_unshared_us").c_str(),
                  shared_page_ratio(json), json["floor_fraction"].get<double>(),
                  json["ideal_fraction"].get<double>());
}

Status run(const Flags& flags) {
  TRY(const std::vector<PresetRow> rows, rows_of(flags));
  for (const PresetRow& row : rows) TRY_STATUS(shape_of(row.spec));
  TRY(const ops::cpu::Isa isa, isa_of(flags.machine));
  const int threads = flags.machine.thread_count();
  const bool preset = !flags.preset.empty();
  const Interrupt interrupt;
  TRY(Ceilings ceilings, measure_ceilings(threads, isa));
  TRY_STATUS(Interrupt::check());
  if (preset && !flags.json) {
    print_text_line(kTableHead, "us per layer and step", "two-phase", "KV outer", "seq outer",
                    "copies", "gain", "floor", "ideal");
  }
  ProgressLine progress("attention");
  AttentionSummary summary;
  int64_t done = 0;
  for (const PresetRow& row : rows) {
    progress.show(done++, static_cast<int64_t>(rows.size()), row.name);
    TRY(const AttentionShape shape, shape_of(row.spec));
    ordered_json json;
    if (preset) json = {{"preset", flags.preset}, {"name", row.name}, {"origin", row.origin}};
    put_parameters(json, row.spec, threads, ops::cpu::isa_name(isa));
    auto measured = measure_attention(shape, ceilings, flags.effort,
                                      {.threads = threads, .isa = flags.machine.isa});
    TRY_STATUS(Interrupt::check());
    if (!measured && (!preset || measured.error().code != ErrorCode::kTooLarge)) {
      return fail(measured.error());
    }
    if (measured) {
      json.update(measured->json);
      summary.add(row, std::move(*measured));
    } else {
      json["skipped"] = measured.error().message;
    }
    progress.clear();
    if (flags.json) {
      print_json_line(json);
    } else {
      preset ? print_table_row(json) : print_all_keys(json);
    }
  }
  if (!preset) return {};
  summary.hold_against(ceilings);
  flags.json ? print_json_line(summary.json(flags.preset)) : summary.print(flags.preset);
  return {};
}

}  // namespace

void add_bench_attention(CLI::App& bench, std::function<int()>* run_command) {
  auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "attention", "Attention over a tree of sequences: two-phase against per-sequence");
  const auto whole = [&](const std::string& name, int32_t& value, Bounds<int32_t> bounds,
                         const std::string& help) {
    return add_whole(*app, name, value, bounds, help + " (default " + std::to_string(value) + ")");
  };
  AttentionSpec& spec = flags->spec;
  auto* heads =
      whole("--heads", spec.heads, {1, kMostHeads}, "query heads, a multiple of --kv-heads");
  auto* kv_heads = whole("--kv-heads", spec.kv_heads, {1, kMostHeads}, "key-value heads");
  whole("--head-dim", spec.head_dim, {1, kMostHeadDim}, "1 to 256");
  auto* batch = whole("--batch", spec.batch, {1, kMostSequences}, "sequences");
  auto* shared =
      whole("--shared", spec.shared, {0, kMostTokens}, "tokens that all sequences share");
  auto* own = whole("--private", spec.own, {0, kMostTokens}, "further tokens of each sequence");
  auto* tree =
      app->add_option("--tree", spec.tree,
                      "instead: total nodes per level / tokens per node, as 1,4,64/1024,256,256")
          ->type_name("NODES/TOKENS");
  app->add_option("--preset", flags->preset,
                  "instead: a set of cases, " + std::string(kAttentionPresets) +
                      "; ends with geometric means. --heads and --kv-heads, where given, hold for "
                      "all of it; what does not fit the memory is said and skipped")
      ->type_name("NAME")
      ->check(not_empty());
  app->add_option("--kv-type", spec.kv_type, "bf16, f32 or int8 (default bf16)")->type_name("TYPE");
  add_machine_flags(*app, flags->machine);
  add_effort_flags(*app, flags->effort);
  app->add_flag("--json", flags->json, "one JSON object a line; _us are microseconds");
  app->callback([=] {
    flags->shape_given = batch->count() + shared->count() + own->count() > 0;
    flags->tree_given = tree->count() > 0;
    flags->heads_given = heads->count() > 0;
    flags->kv_heads_given = kv_heads->count() > 0;
    *run_command = [flags] { return exit_code_of(run(*flags)); };
  });
}

}  // namespace coppice::tools
