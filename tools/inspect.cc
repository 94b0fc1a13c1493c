#include "inspect.h"

#include <cstdio>
#include <memory>
#include <string>

#include "arguments.h"
#include "exit_code.h"
#include "model/gate_file.h"
#include "result_json.h"

namespace coppice::tools {
namespace {

struct Flags {
  std::string gate;
  bool json = false;
};

void print_sizes(const model::GateHeader& h) {
  std::printf("kind       %s\n", std::string(model::gate_kind_name(h.kind)).c_str());
  std::printf("base       hidden %d, %d layers, %d KV heads, hash %s\n", h.hidden_size,
              h.num_hidden_layers, h.num_key_value_heads, h.base.c_str());
  if (h.heads > 0) {
    std::printf("attention  %d heads of %d, reach %d\n", h.heads, h.head_dim, h.reach);
  }
  std::printf("always     the last %d tokens and the first %d\n", h.window, h.sinks);
  std::printf("generated  %s\n", h.decode_gate ? "decided like prompts" : "all kept");
}

void print_tiers(const model::GateHeader& h) {
  std::printf("\n%-8s %10s %8s %14s\n", "tier", "threshold", "kept", "loss, points");
  for (const model::GateTier tier : model::kGateTiers) {
    const model::TierSetting& s = h.tier(tier);
    std::printf("%-8s %10.3f %7.1f%% %14.2f\n", std::string(model::gate_tier_name(tier)).c_str(),
                static_cast<double>(s.threshold), 100 * s.keep, s.loss);
  }
}

void print_calibration(const model::GateHeader& h) {
  if (h.calibration.empty()) {
    std::printf("\nno calibration report\n");
    return;
  }
  std::printf("\n%-16s %-8s %8s %9s %9s %8s  %s\n", "family", "tier", "kept", "exact", "gated",
              "samples", "gate training");
  for (const model::CalibrationLine& line : h.calibration) {
    std::printf("%-16s %-8s %7.1f%% %8.1f%% %8.1f%% %8d  %s\n", line.family.c_str(),
                std::string(model::gate_tier_name(line.tier)).c_str(), 100 * line.keep,
                100 * line.full, 100 * line.gated, line.samples, line.held_out ? "unseen" : "seen");
  }
}

int inspect(const Flags& flags) {
  const auto file = model::GateFile::open(flags.gate);
  if (!file) {
    std::fprintf(stderr, "coppice: %s\n", file.error().message.c_str());
    return kExitFailure;
  }
  if (flags.json) {
    const auto json = nlohmann::ordered_json::parse(model::gate_header_json(file->header()));
    std::printf("%s\n", one_line(json).c_str());
    return kExitOk;
  }
  print_sizes(file->header());
  print_tiers(file->header());
  print_calibration(file->header());
  return kExitOk;
}

}  // namespace

void add_inspect(CLI::App& app, std::function<int()>* run) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("inspect", "what a gate file says of itself");
  command
      ->add_option("--gate", flags->gate,
                   "the gate file: its kind, tiers and calibration report are printed")
      ->type_name("FILE")
      ->required()
      ->check(not_empty());
  command->add_flag("--json", flags->json, "the header as one line of JSON");
  command->callback([flags, run] { *run = [flags] { return inspect(*flags); }; });
}

}  // namespace coppice::tools
