// What:    a Hugging Face directory as a checkpoint: config.json, generation_config.json,
//          tokenizer.json, and model.safetensors or model.safetensors.index.json with its shards.
// Owns:    the maps of the safetensors files.
// Threads: as Checkpoint.
// Fails:   as Checkpoint. A shard's name must be a plain file name inside the directory.
#pragma once

#include <memory>
#include <string>

#include "coppice/error.h"
#include "model/checkpoint.h"

namespace coppice::model {

Expected<std::unique_ptr<Checkpoint>> open_hf_directory(const std::string& path);

}  // namespace coppice::model
