// What:    `eval --policies`: policies of eviction compared on the families, with a directory of
//          results that an interrupted command goes on from.
// Owns:    nothing after it returns.
// Threads: one.
// Fails:   as eviction/comparison.h; kInvalidArgument naming the flag, and for a directory that
// holds
//          another comparison.
#pragma once

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "coppice/options.h"
#include "eviction/comparison.h"

namespace coppice::tools {

struct PolicyFlags {
  std::vector<std::string> policies;  // empty: nothing is compared
  std::vector<double> budgets{50, 25, 12.5, 6.25};
  int seeds = 3;
  int window = 16, sinks = 4;
  std::string out;  // a directory; empty: nothing is kept
};

void add_policy_flags(CLI::App& command, PolicyFlags& flags);

struct PolicyComparison {
  EngineOptions engine;
  std::vector<eviction::Task> tasks;
  std::string numerics;  // flags that change what is computed, as reports have them
  uint64_t first_seed = 1;
  int samples = 500, per_context = 32;
  bool json = false;
};
Status compare_policies(const PolicyFlags& flags, const PolicyComparison& comparison);

}  // namespace coppice::tools
