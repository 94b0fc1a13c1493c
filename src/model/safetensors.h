// What:    the header of a .safetensors file: eight bytes of length, JSON, then the data.
// Owns:    nothing; entries point into the caller's bytes by offset.
// Threads: pure functions.
// Fails:   kCorrupt naming file, tensor and byte; kUnsupported for a type the format does not know.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>

#include "coppice/error.h"
#include "model/tensor_entry.h"

namespace coppice::model {

// The text under "__metadata__".
using SafetensorsMetadata = std::map<std::string, std::string, std::less<>>;

// Every count and offset is checked against the file: the data section is covered exactly once.
// Types other than F32, F16 and BF16 are listed, and refused when they are asked for.
Expected<TensorTable> read_safetensors(std::span<const uint8_t> file, const std::string& where,
                                       SafetensorsMetadata* metadata = nullptr);

}  // namespace coppice::model
