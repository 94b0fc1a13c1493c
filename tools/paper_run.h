// What:    the shapes of ChunkAttention's Table 1, Table 3 and Figure 3 (arXiv 2402.15220),
//          measured on this machine beside what the paper printed for an A100.
// Owns:    nothing.
// Threads: one; the backend's workers below.
// Fails:   as AttentionCase, GemmCase and DecodeCurve; kCancelled once an Interrupt came.
#pragma once

#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "ceilings.h"
#include "coppice/error.h"
#include "samples.h"

namespace coppice::tools {

struct PaperOptions {
  int threads = 0;
  std::string isa = "auto";
  Effort effort;
  int32_t every = 16;  // Figure 3: one step in so many is timed
  int32_t scale = 1;   // heads, widths and tokens are divided by it, to try the command
  std::function<void(const std::string& part)> progress = {};  // what is measured now
};

// One row per batch and part: {batch, part: "qkv" | "attention" | "mlp", mflop, mb, us, gflops,
// gbps, paper_us}.
Expected<nlohmann::ordered_json> paper_table1(Ceilings& ceilings, const PaperOptions& options);
// One `bench attention` line per row, with {n_p, n_s, paper: {paged_us, paged_shared_us,
// chunk_us}}.
Expected<nlohmann::ordered_json> paper_table3_measured(Ceilings& ceilings,
                                                       const PaperOptions& options);
// How many of the steps [begin, end) the time of `step` stands for: one in `every` is timed, in the
// middle of those it stands for; 0: not this one.
int32_t steps_stood_for(int32_t step, int32_t begin, int32_t end, int32_t every);

// One row per (n_s, n_c): tokens per second of 32 sequences, {two_phase, per_sequence, copies,
// paper_paged, paper_chunk}.
Expected<nlohmann::ordered_json> paper_figure3(const PaperOptions& options);

}  // namespace coppice::tools
