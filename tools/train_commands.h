// What:    the subcommands of coppice-train; each adds its flags and runs when it is parsed.
// Owns:    nothing.
// Threads: one caller.
// Fails:   into `result`.
#pragma once

#include <CLI/CLI.hpp>

#include "coppice/error.h"

namespace coppice::tools {

void add_tokenizer(CLI::App& app, Status& result);
void add_base(CLI::App& app, Status& result);
void add_gate(CLI::App& app, Status& result);
void add_eval(CLI::App& app, Status& result);
void add_examine(CLI::App& app, Status& result);
void add_logits(CLI::App& app, Status& result);
void add_export(CLI::App& app, Status& result);

}  // namespace coppice::tools
