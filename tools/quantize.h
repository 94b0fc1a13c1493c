// What:    `coppice quantize`: a model as a GGUF file of one weight type.
// Owns:    nothing.
// Threads: one.
// Fails:   returns the exit code: 0, 1 with one line on standard error, 2 for invalid flags.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// Adds the subcommand; when it was named, *run is what it does.
void add_quantize(CLI::App& app, std::function<int()>* run);

}  // namespace coppice::tools
