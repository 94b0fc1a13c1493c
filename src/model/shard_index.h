// What:    model.safetensors.index.json: which .safetensors file of the directory holds a tensor.
// Owns:    nothing.
// Threads: pure function.
// Fails:   kCorrupt naming the file and the entry. A shard's name must be a plain file name, so
// that
//          an index cannot lead out of its directory.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "coppice/error.h"

namespace coppice::model {

using ShardIndex = std::map<std::string, std::string, std::less<>>;  // tensor name to file name

Expected<ShardIndex> read_shard_index(std::string_view text, const std::string& where);

}  // namespace coppice::model
