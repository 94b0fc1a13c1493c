// What:    a sequence's tokens as text: incremental decode, then stop strings.
// Owns:    the unfinished character and the text held back.
// Threads: one.
// Fails:   never.
#pragma once

#include <optional>
#include <string>

#include "coppice/request.h"
#include "engine/stop_matcher.h"
#include "text/tokenizer.h"

namespace coppice::engine {

class OutputText {
 public:
  OutputText(const text::Tokenizer& tokenizer, const Sampling& sampling)
      : decoder_(tokenizer), stops_(sampling.stop, sampling.include_stop_str_in_output) {}

  // watch: whether stop strings count yet (min_tokens).
  StopMatcher::Output push(TokenId token, bool watch) {
    const std::string piece = decoder_.push(token);
    return watch ? stops_.push(piece) : StopMatcher::Output{piece, false};
  }
  // What was held back or left unfinished; may complete a stop string no more.
  std::string finish() { return stops_.finish() + decoder_.finish(); }

 private:
  text::IncrementalDecoder decoder_;
  StopMatcher stops_;
};

}  // namespace coppice::engine
