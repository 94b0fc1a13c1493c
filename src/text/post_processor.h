// What:    the post-processor stage: the tokens put around a text (bos and the like).
// Owns:    those tokens.
// Threads: plain values.
// Fails:   load: kCorrupt or kUnsupported naming the key.
#pragma once

#include <vector>

#include "coppice/error.h"
#include "text/json.h"
#include "text/tokenizer.h"

namespace coppice::text {

struct PostProcessor {
  std::vector<TokenId> before, after;

  // tokenizer.json's `post_processor`: null, ByteLevel (does nothing to ids), TemplateProcessing
  // (its `single` template), or a Sequence of them. Ids must be below vocab_size.
  static Expected<PostProcessor> load(const JsonAt& config, int32_t vocab_size);
};

}  // namespace coppice::text
