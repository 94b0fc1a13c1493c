// What:    `coppice eval`: tasks with known answers, asked of a model through the engine.
// Owns:    nothing.
// Threads: one.
// Fails:   returns the exit code: 0, 1 with one line on standard error, 2 for invalid flags.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// Adds the subcommand; when it was named, *run is what it does.
void add_eval(CLI::App& app, std::function<int()>* run);

}  // namespace coppice::tools
