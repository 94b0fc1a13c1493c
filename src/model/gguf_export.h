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

bool can_export(DType type);  // F32, F16, BF16, Q8_0, Q4_0, Q4_K

struct GgufExport {
  // As can_export() allows. Norms and biases stay F32. Embeddings and the output matrix
  // of the 4-bit types become Q8_0, as do matrices whose rows are no whole blocks of Q4_K; rows
  // that are no whole blocks of 32 become BF16.
  DType type = DType::kQ8_0;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes
};

Status export_gguf(const Checkpoint& checkpoint, const std::string& path,
                   const GgufExport& options);

}  // namespace coppice::model
