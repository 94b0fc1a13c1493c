// What:    a base's directory once more, with a twin's adapters merged into its weights.
// Owns:    nothing.
// Threads: one caller.
// Fails:   the file system's errors; kInvalidArgument where `to` is the base itself.
#pragma once

#include <filesystem>

#include "coppice/error.h"
#include "train/twin.h"

namespace coppice::train {

// Copies what is no weight file (config, tokenizer, ...) and writes model.safetensors in f32.
Status write_merged_base(const Twin& twin, const std::filesystem::path& from,
                         const std::filesystem::path& to);

}  // namespace coppice::train
