// What:    the normalizer stage: a text to the form the vocabulary was trained on.
// Owns:    its settings.
// Threads: const use from any thread.
// Fails:   load: kCorrupt or kUnsupported naming the key.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "coppice/error.h"
#include "text/json.h"

namespace coppice::text {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // text: well-formed UTF-8. The result is well-formed too.
  virtual std::string apply(std::string_view text) const = 0;
};

// tokenizer.json's `normalizer`: null, NFC, NFD, NFKC, NFKD, or a Sequence of them.
Expected<std::unique_ptr<Normalizer>> load_normalizer(const JsonAt& config);

}  // namespace coppice::text
