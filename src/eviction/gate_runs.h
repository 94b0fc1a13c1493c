// What:    (of comparison.cc) what its kinds of runs share, and the runs of gates.
// Owns:    a Tally its outcome.
// Threads: one calling thread.
// Fails:   as comparison.h.
#pragma once

#include <string>
#include <vector>

#include "eviction/comparison.h"
#include "eviction/loaded_model.h"

namespace coppice::eviction {

// Of contexts that tune a policy: no seed that a command line names.
inline constexpr uint64_t kApartSeed = 0x5eed0000a9a27;

// What one policy made of the contexts of a task.
class Tally {
 public:
  explicit Tally(const std::vector<Sample>& samples);
  void add(const Sample& sample, const std::vector<std::vector<int32_t>>& answers,
           const LoadedModel& model);
  void add_nats(double nats) { outcome_.nats.push_back(nats); }
  void add(double held, double kept);  // of a context
  Outcome finish(const OutcomeKey& key);

 private:
  Outcome outcome_;
  int contexts_ = 0, answers_ = 0;
};

Status check_give_up(const ComparisonHooks& hooks);
// What is still to be run of a policy.
std::vector<OutcomeKey> missing(const ComparisonOptions& options, const ComparisonHooks& hooks,
                                const PolicyPlan& policy, const Task& task, uint64_t seed);

Status run_gate(const ComparisonOptions& options, const ComparisonHooks& hooks,
                const PolicyPlan& policy);

}  // namespace coppice::eviction
