// What:    the pre-tokenizer stage: a text is cut into the words that BPE works on.
// Owns:    its patterns.
// Threads: const use from any thread.
// Fails:   load: kCorrupt or kUnsupported naming the key.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "text/json.h"

namespace coppice::text {

// A stretch of text and the words in it, in order; what lies between words is dropped.
struct Words {
  struct Span {
    size_t begin, end;  // bytes of `text`, end > begin
  };
  std::string text;  // well-formed UTF-8
  std::vector<Span> spans;
  // The text goes on after bytes that are no characters: it is not the beginning of anything, so no
  // space is put before it.
  bool continues = false;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void apply(Words* words) const = 0;
};

// tokenizer.json's `pre_tokenizer`: null, ByteLevel, Split, Digits, Whitespace, WhitespaceSplit, or
// a Sequence of them.
Expected<std::unique_ptr<PreTokenizer>> load_pre_tokenizer(const JsonAt& config);

}  // namespace coppice::text
