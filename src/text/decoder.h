// What:    the decoder stage: the bytes each token stands for.
// Owns:    nothing.
// Threads: any.
// Fails:   load: kCorrupt or kUnsupported naming the key.
#pragma once

#include <string>
#include <string_view>

#include "coppice/error.h"
#include "text/json.h"

namespace coppice::text {

// How a token's spelling becomes bytes. A text is its tokens' bytes one after the other.
using TokenBytes = std::string (*)(std::string_view spelling);

// tokenizer.json's `decoder`: ByteLevel, or a Sequence of it and then Fuse.
Expected<TokenBytes> load_decoder(const JsonAt& config);

}  // namespace coppice::text
