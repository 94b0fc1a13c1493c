// What:    `coppice inspect`: what a gate file says of itself.
// Owns:    nothing.
// Threads: one.
// Fails:   as GateFile::open.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace coppice::tools {

void add_inspect(CLI::App& app, std::function<int()>* run);

}  // namespace coppice::tools
