// What:    the pre-norm decoder of Llama and its kin: RMS norm, rotary grouped-query attention,
//          gated MLP. Source: transformers, models/llama/modeling_llama.py (and qwen2, qwen3).
// Owns:    as model.h.
// Threads: one.
// Fails:   as model.h.
#pragma once

#include "model/model.h"

namespace coppice::model {

Status check_decoder(const Checkpoint& checkpoint);
Expected<std::unique_ptr<Model>> load_decoder(const Checkpoint& checkpoint, ops::Backend& backend,
                                              const ModelOptions& options,
                                              const LoadProgress& progress);

}  // namespace coppice::model
