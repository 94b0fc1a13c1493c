// What:    a checkpoint of any format as a GGUF file whose matrices have one type, as llama.cpp's
//          converter lays it out.
// Owns:    nothing.
// Threads: one caller; workers of its own while rows are narrowed.
// Fails:   kUnsupported (a type that is not written, a tokenizer GGUF has no name for); as
//          Model::check; the checkpoint's and the file's errors.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "model/checkpoint.h"

namespace coppice::model {

struct GgufExport {
  DType type = DType::kQ8_0;  // as can_narrow() allows; of each tensor: stored_type.h
  int threads = 1;            // at least 1; whatever their number, the file is the same
  // Bytes, many times a matrix. An error ends the export with it, and no file is written.
  std::function<Status(int64_t done, int64_t total)> progress;
};

// What the file's tensors will be.
struct GgufContents {
  std::map<DType, int> tensors;
  int64_t bytes = 0;
};
Expected<GgufContents> gguf_contents(const Checkpoint& checkpoint, DType type);

Status export_gguf(const Checkpoint& checkpoint, const std::string& path,
                   const GgufExport& options);

}  // namespace coppice::model
