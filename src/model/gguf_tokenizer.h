// What:    tokenizer.json text made of the tokenizer.ggml.* metadata of a GGUF file, and back.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   kNotFound without a tokenizer; kUnsupported for another model than "gpt2" (byte-level
// BPE)
//          or an unknown pre-tokenizer; kCorrupt naming key and index.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "model/gguf.h"

namespace coppice::model {

// vocab_size: rows of the embedding; the file may not name more tokens.
Expected<std::string> gguf_tokenizer_json(const GgufFile& file, int32_t vocab_size);

// The same as metadata, values of tokenizer.ggml.*.
struct GgufVocabulary {
  std::string pre;                  // llama.cpp's name of the pre-tokenizer
  std::vector<std::string> tokens;  // [vocab_size]
  std::vector<int32_t> types;       // [vocab_size]
  std::vector<std::string> merges;  // "left right"
  int32_t bos = -1, eos = -1;       // put before and behind a text; -1: nothing is
};
// kUnsupported where GGUF has no name for what tokenizer.json asks for.
Expected<GgufVocabulary> gguf_vocabulary(const std::string& tokenizer_json, int32_t vocab_size);

}  // namespace coppice::model
