// What:    the flags of every command that loads a model, and the engine options they amount to.
// Owns:    plain values.
// Threads: one.
// Fails:   options_of: kInvalidArgument naming the flag and what it accepts, kUnsupported,
// kNotFound.
#pragma once

#include <optional>
#include <string>

#include <CLI/CLI.hpp>

#include "coppice/options.h"

namespace coppice::tools {

inline constexpr int32_t kMostThreads = 1024;
inline constexpr const char* kThreadsHelp = "worker threads; 0: physical cores (default 0)";

// As typed; words are judged by options_of, so that every command refuses them alike.
struct ModelFlags {
  std::string model;
  std::string random_weights;
  int64_t ctx = 0;
  int32_t threads = 0;
  std::string dtype = "bf16";
  std::string weights = "auto";
  std::string kv_type = "bf16";
  std::string memory;
  std::string kv_budget;
  std::string attention = "two-phase";
  std::string isa = "auto";
  std::string gate;
  std::string kv_tier;  // empty: not given
  double gate_max_loss = EngineOptions{}.gate_max_loss;
  bool gate_force = false;
  std::string device = "cpu";
  std::optional<uint64_t> seed;
  int32_t max_rows = EngineOptions{}.max_rows;
  int32_t slice = EngineOptions{}.slice;
  int32_t max_live = EngineOptions{}.max_live;
  bool profile = false;
  bool json = false;
  std::string log_format = "text";
  bool verbose = false;
};

void add_model_flags(CLI::App& app, ModelFlags& flags);
// Without --model: the bundled one. Also sets up the process log.
Expected<EngineOptions> options_of(const ModelFlags& flags);

// --random-weights SHAPE as the name of a model.
Expected<std::string> random_model(const std::string& shape);
// The bundled model: in the data directory of the installation, else beside the binary.
Expected<std::string> bundled_model();

}  // namespace coppice::tools
