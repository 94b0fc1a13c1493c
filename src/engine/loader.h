// What:    from options to the parts of an engine: backend, model, tokenizer, cache, limits.
// Owns:    nothing after it returns.
// Threads: one.
// Fails:   as Checkpoint, Model, Tokenizer and KvCache; kTooLarge naming what --memory cannot hold.
#pragma once

#include <memory>

#include <array>

#include "coppice/engine.h"
#include "coppice/options.h"
#include "engine/core.h"

namespace coppice::engine {

// What requests of each KvTier run under; null: off, or no gate.
struct Tiers {
  std::array<std::shared_ptr<const kv::Tier>, 4> of;
  std::array<std::shared_ptr<const kv::Tier>, 4> elastic;  // the same, where thinning is allowed
  std::array<std::string, 4> refused;  // why a tier is not served, where it is not
  KvTier usual = KvTier::kOff;         // of requests that bring none
  uint64_t gate_hash = 0;
};

struct Loaded {
  Parts parts;
  Limits limits;
  Tiers tiers;
  kv::Partition partition = kv::Partition::kTwoPhase;
  EngineInfo info;
};

// What weights that are not quantised are computed in.
DType plain_weights(const EngineOptions& options);
Expected<std::unique_ptr<ops::Backend>> backend_for(const EngineOptions& options);
// What the parts are for: an evaluation may also have gates that cannot be served, and runs them
// itself.
enum class Purpose { kServe, kEvaluate };
// The backend is given, so that its caller can wrap it.
Expected<Loaded> load(const EngineOptions& options, std::unique_ptr<ops::Backend> backend,
                      const LoadCallback& progress, Purpose purpose = Purpose::kServe);

// A checked, encoded request. number: counts requests from 1; default_seed: the engine's.
Expected<std::shared_ptr<const Submission>> prepare(Request request,
                                                    std::shared_ptr<Observer> observer,
                                                    const Parts& parts, const Limits& limits,
                                                    const Tiers& tiers, const std::string& model,
                                                    RequestId number, uint64_t default_seed);
// Marks tokens that no gate may drop, as the cache's keys have it. kInvalidArgument: not of these.
Status mark_exact(const std::vector<TokenRange>& exact, std::vector<TokenId>& tokens);
// The tier a request runs in. kInvalidArgument: it is not served here, and why.
Expected<KvTier> serve_tier(const Tiers& tiers, std::optional<KvTier> asked);
// What requests share prefixes within: the model, the tier with its gate, whether that may be
// thinned, and the salt. Tier off has nothing to thin by.
kv::Scope scope_of(const std::string& model, const Tiers& tiers, KvTier tier,
                   const std::string& cache_salt, KvThinning thinning = KvThinning::kRefuse);

}  // namespace coppice::engine
