// What:    a checkpoint of random bf16 weights of a given shape, for measurements: nothing is
//          stored, a tensor is made from its name and a seed when it is asked for.
// Owns:    plain values.
// Threads: as Checkpoint.
// Fails:   kInvalidArgument naming what a shape looks like.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "model/checkpoint.h"

namespace coppice::model {

// What Checkpoint::open takes for random weights: this and a shape.
inline constexpr std::string_view kRandomPrefix = "random:";

// shape: "tiny", "L1B" (Llama-3.2-1B's: 16 layers, hidden 2048, heads 32/8, head_dim 64, FFN 8192,
// vocabulary 128256, tied) or "E,L,Hq,Hkv,D,F,V" (hidden, layers, query heads, KV heads, head_dim,
// FFN, vocabulary; Llama architecture, tied).
Expected<ModelConfig> random_config(const std::string& shape);
// The tokenizer knows single bytes and no merges.
Expected<std::unique_ptr<Checkpoint>> open_random(const std::string& shape, uint64_t seed = 1);

}  // namespace coppice::model
