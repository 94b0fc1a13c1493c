// What:    `coppice bench attention`: two-phase attention against per-sequence attention over the
//          same pages and over copied ones, and against the ceilings of this machine.
// Owns:    nothing.
// Threads: one; the backend's workers below.
// Fails:   returns the exit code: 0, 1 with one line on standard error, 2 for invalid flags.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// Adds the subcommand `attention`; when it was named, *run is what it does.
void add_bench_attention(CLI::App& bench, std::function<int()>* run);

}  // namespace coppice::tools
