// What:    the model stage as the file has it: tokenizer.json's `model` of type BPE.
// Owns:    nothing.
// Threads: any.
// Fails:   kCorrupt or kUnsupported naming the key.
#pragma once

#include "coppice/error.h"
#include "text/bpe.h"
#include "text/json.h"

namespace coppice::text {

// Ids must be 0 to n - 1, each once, so memory is bounded by the file's size. Merges are "a b" or
// ["a", "b"]. Refused: dropout, continuing_subword_prefix, end_of_word_suffix, byte_fallback.
Expected<Bpe> load_bpe(const JsonAt& config);

}  // namespace coppice::text
