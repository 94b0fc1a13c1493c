// What:    from options to the parts of an engine: backend, model, tokenizer, cache, limits.
// Owns:    nothing after it returns.
// Threads: one.
// Fails:   as Checkpoint, Model, Tokenizer and KvCache; kTooLarge naming what --memory cannot hold.
#pragma once

#include <memory>

#include "coppice/engine.h"
#include "coppice/options.h"
#include "engine/core.h"

namespace coppice::engine {

struct Loaded {
  Parts parts;
  Limits limits;
  kv::Partition partition = kv::Partition::kTwoPhase;
  EngineInfo info;
};

// What weights that are not quantised are computed in.
DType plain_weights(const EngineOptions& options);
Expected<std::unique_ptr<ops::Backend>> backend_for(const EngineOptions& options);
// The backend is given, so that a test can wrap it.
Expected<Loaded> load(const EngineOptions& options, std::unique_ptr<ops::Backend> backend,
                      const LoadCallback& progress);

// A checked, encoded request. number: counts requests from 1; default_seed: the engine's.
Expected<std::shared_ptr<const Submission>> prepare(Request request,
                                                    std::shared_ptr<Observer> observer,
                                                    const Parts& parts, const Limits& limits,
                                                    const std::string& scope, RequestId number,
                                                    uint64_t default_seed);
// What requests share prefixes within: the model, the tier and the salt.
kv::Scope scope_of(const std::string& model, const std::string& cache_salt);

}  // namespace coppice::engine
