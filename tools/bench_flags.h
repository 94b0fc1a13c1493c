// What:    what the bench commands have in common: flags of the machine and of the effort, and the
//          way their lines reach standard output.
// Owns:    plain values.
// Threads: one.
// Fails:   isa_of: kInvalidArgument or kUnsupported, naming --isa and what it takes.
#pragma once

#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "coppice/error.h"
#include "ops/cpu/isa.h"
#include "samples.h"

namespace coppice::tools {

struct MachineFlags {
  int32_t threads = 0;
  std::string isa = "auto";

  int thread_count() const;  // the physical cores where 0 was given
};

void add_machine_flags(CLI::App& app, MachineFlags& flags);
Expected<ops::cpu::Isa> isa_of(const MachineFlags& flags);

// --rounds and --seconds; the defaults are what `effort` holds.
void add_effort_flags(CLI::App& app, Effort& effort);

// A line of JSON, at once, so that an interrupted run keeps what it has measured.
void print_json_line(const nlohmann::ordered_json& json);
// The same for text, as printf takes it.
__attribute__((format(printf, 1, 2))) void print_text_line(const char* format, ...);

}  // namespace coppice::tools
