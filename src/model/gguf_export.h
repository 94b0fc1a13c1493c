// What:    a checkpoint of any format as a GGUF file whose matrices have one type, as llama.cpp's
//          converter lays it out.
// Owns:    nothing.
// Threads: one.
// Fails:   kUnsupported (a type that is not written, a tokenizer GGUF has no name for); the
//          checkpoint's and the file's errors.
#pragma once

#include <functional>
#include <string>

#include "model/checkpoint.h"

namespace coppice::model {

struct GgufExport {
  DType type = DType::kQ8_0;  // as can_narrow() allows; of each tensor: stored_type.h
  // Bytes, many times a matrix. An error ends the export with it, and no file is written.
  std::function<Status(int64_t done, int64_t total)> progress;
};

Status export_gguf(const Checkpoint& checkpoint, const std::string& path,
                   const GgufExport& options);

}  // namespace coppice::model
