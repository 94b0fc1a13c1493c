// What:    sets of `bench attention` cases with a name, each row with where it comes from.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   never; an unknown name is an empty set.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "attention_spec.h"

namespace coppice::tools {

struct PresetRow {
  std::string name;
  std::string origin;
  AttentionSpec spec;
};

// "reference", "paper-table3", "trees" or "ragged".
std::vector<PresetRow> attention_preset(std::string_view name);
inline constexpr std::string_view kAttentionPresets = "reference, paper-table3, trees or ragged";

// The paper's Table 3: microseconds on an A100 with the same batch and heads.
struct PaperLatency {
  int32_t prompt, shared;  // n_p, n_s
  double paged, paged_shared, chunk;
};
std::vector<PaperLatency> paper_table3();

}  // namespace coppice::tools
