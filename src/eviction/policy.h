// What:    the policies of eviction that a comparison knows by name.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   find_policy: kInvalidArgument naming those that there are; as reading a file.
//
// Scored after the whole context was read (here), decided token by token in the tree (`served`), or
// decided in one pass over the prompt (a gate file of a global gate).
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"
#include "eviction/keep_mask.h"
#include "eviction/scores.h"

namespace coppice::eviction {

// What a score may look at besides the context's own keys and queries.
enum class Sight {
  kContext,
  kQuestion,  // the question that will be asked: an upper bound, not to be had in practice
  kReplay,    // the context once more
};

struct ScoredPolicy {
  std::string_view name;
  Sight sight;
  bool pooled;  // all lists compete for one budget in the paper itself
  Scores (*scores)(const ContextView&);
};

// How a policy of the command line is run.
struct PolicyPlan {
  std::string name;  // as reports have it
  enum class Kind { kFull, kRecent, kScored, kStatic, kGate } kind = Kind::kFull;
  bool sinks = false;                    // kRecent: the first tokens too
  const ScoredPolicy* scored = nullptr;  // kScored
  bool heads = false;                    // "+heads": the lists of a layer compete
  std::string gate = {};                 // kGate: what Gate::open takes
  uint64_t identity = 0;                 // of a gate file: a hash of its bytes
};

// text: "full", "window", "streaming", "static-heads", the name of a score, "+heads" behind it for
// one budget over the heads of a layer (arXiv 2407.11550), "random", "key-norm", or [NAME=]FILE of
// a gate.
Expected<PolicyPlan> find_policy(const std::string& text, const Protection& protection);
// For --help: the names, with commas.
std::string policy_names();

}  // namespace coppice::eviction
