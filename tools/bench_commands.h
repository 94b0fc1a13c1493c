// What:    `coppice bench ...`: what this engine does, held against this machine's ceilings.
// Owns:    nothing.
// Threads: one; the backend's workers below.
// Fails:   every command returns the exit code: 0, 1 with one line on standard error, 2 for invalid
//          flags.
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// Each adds its subcommand; when it was named, *run is what it does.
void add_bench_attention(CLI::App& bench, std::function<int()>* run);
void add_bench_gate(CLI::App& bench, std::function<int()>* run);
void add_bench_gemm(CLI::App& bench, std::function<int()>* run);
void add_bench_model(CLI::App& bench, std::function<int()>* run);
void add_bench_batched(CLI::App& bench, std::function<int()>* run);
void add_bench_tokenize(CLI::App& bench, std::function<int()>* run);
void add_bench_paper(CLI::App& bench, std::function<int()>* run);

}  // namespace coppice::tools
