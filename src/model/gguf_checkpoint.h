// What:    a GGUF file (architectures llama, qwen2, qwen3) as a checkpoint.
// Owns:    the map of the file; copies of the tensors whose rows it puts back in order.
// Threads: as Checkpoint.
// Fails:   as Checkpoint.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "coppice/error.h"
#include "model/checkpoint.h"
#include "model/gguf.h"

namespace coppice::model {

Expected<std::unique_ptr<Checkpoint>> open_gguf(const std::string& path);
// The same over bytes that the caller keeps for as long as the checkpoint lives.
Expected<std::unique_ptr<Checkpoint>> open_gguf_bytes(std::span<const uint8_t> bytes,
                                                      const std::string& where);

// The config that a file's metadata and tensors state, with the same bounds as config.json's.
Expected<ModelConfig> read_gguf_config(const GgufFile& file);

// general.architecture's name for it.
std::string_view gguf_architecture(Architecture architecture);

}  // namespace coppice::model
