// What:    the shape of a `bench attention` case as people name it, and the tree it amounts to.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   shape_of: kInvalidArgument naming the flag and what it accepts.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "attention_case.h"
#include "coppice/error.h"

namespace coppice::tools {

struct AttentionSpec {
  int32_t heads = 32, kv_heads = 32, head_dim = 128;
  std::string kv_type = "bf16";
  // One of three. Flat: `batch` sequences over `shared` tokens with `own` tokens each.
  int32_t batch = 32, shared = 4096, own = 128;
  // Total nodes per level / tokens per node.
  std::string tree = {};
  // So many prefixes of random lengths, their popularity by Zipf's law among `batch` sequences with
  // random lengths of their own.
  int32_t zipf_prefixes = 0;
};

Expected<AttentionShape> shape_of(const AttentionSpec& spec);

// The settled parameters of a line: what does not describe the case is null.
void put_parameters(nlohmann::ordered_json& json, const AttentionSpec& spec, int threads,
                    std::string_view isa);

}  // namespace coppice::tools
