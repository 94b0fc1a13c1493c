// What:    what a gate is worth while serving, against tier off in the same engine: bytes held,
//          attention's time, requests held at once, and what deciding costs a prefill.
// Owns:    the engine.
// Threads: one; the engine runs on the caller's.
// Fails:   as EngineBench; kInvalidArgument for an engine without a gate.
#pragma once

#include <memory>

#include "engine_bench.h"
#include "samples.h"

namespace coppice::tools {

struct GateShape {
  int64_t shared = 4096;                       // tokens of the prompt that all users share
  int64_t own = 64;                            // and of each user's
  int64_t users = 32;                          // at once
  int64_t generate = 16;                       // tokens of every answer
  int64_t held_shared = 2048, held_own = 512;  // of the requests that are counted ...
  int64_t held_generate = 64;                  // of their own, the last so many are generated, ...
  int64_t held_users = 8;                      // in a budget that holds so many without the gate
};

// One tier's figures.
struct TierFigures {
  Samples prefill, attention, steps;  // seconds: of the shared prompt; of all answers' attention
                                      // and steps
  int64_t prefix_bytes = 0;           // held of the shared prompt alone
  int64_t bytes = 0;                  // held at the peak, all users at work
  int64_t at_once = 0;                // most requests at work in the budget
};

class GateBench {
 public:
  static Expected<std::unique_ptr<GateBench>> open(const EngineOptions& options, KvTier tier);

  // A round of both tiers, one after the other: which comes first alternates.
  Status round(const GateShape& shape);
  Status count_held(const GateShape& shape);

  const TierFigures& off() const { return off_; }
  const TierFigures& gated() const { return gated_; }
  EngineBench& bench() { return *bench_; }

 private:
  GateBench(std::unique_ptr<EngineBench> bench, KvTier tier)
      : bench_(std::move(bench)), tier_(tier) {}
  Status measure(const GateShape& shape, const std::vector<TokenId>& shared,
                 const std::vector<std::vector<TokenId>>& own, KvTier tier, TierFigures& figures);
  Status count(const GateShape& shape, KvTier tier, int64_t budget, TierFigures& figures);

  std::unique_ptr<EngineBench> bench_;
  KvTier tier_;
  bool gated_first_ = false;
  TierFigures off_, gated_;
};

}  // namespace coppice::tools
