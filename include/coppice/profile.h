// What:    where the time of an engine's steps went, per kind of operation.
// Owns:    plain values.
// Threads: any.
// Fails:   never.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace coppice {

struct ProfileEntry {
  std::string name;     // "attention", "product gate, up [8192, 2048]", "sampling", ...
  std::string ceiling;  // what bounds it beside memory: "f32", "bf16", "int8"; empty: memory alone
  int64_t calls = 0;
  double seconds = 0;
  double flops = 0;
  double bytes = 0;  // the least that had to be moved: each operand once
  double exps = 0;   // exponentials
};

// Since the engine was opened or the profile was reset.
struct Profile {
  int64_t steps = 0, rows = 0;
  double seconds = 0;                 // of the steps; the entries add up to it
  std::vector<ProfileEntry> entries;  // most time first
};

}  // namespace coppice
