// What:    `coppice generate`: one prompt or a batch file in, text or JSON lines out.
// Owns:    nothing.
// Threads: one.
// Fails:   returns the exit code: 0, 1 with one line on standard error, 2 for invalid flags.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// Adds the subcommand; when it was named, *run is what it does.
void add_generate(CLI::App& app, std::function<int()>* run);

}  // namespace coppice::tools
