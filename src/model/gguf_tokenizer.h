// What:    tokenizer.json text made of the tokenizer.ggml.* metadata of a GGUF file.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   kNotFound without a tokenizer; kUnsupported for another model than "gpt2" (byte-level
// BPE)
//          or an unknown pre-tokenizer; kCorrupt naming key and index.
#pragma once

#include <cstdint>
#include <string>

#include "coppice/error.h"
#include "model/gguf.h"

namespace coppice::model {

// vocab_size: rows of the embedding; the file may not name more tokens.
Expected<std::string> gguf_tokenizer_json(const GgufFile& file, int32_t vocab_size);

}  // namespace coppice::model
