// What:    finds stop strings in text that arrives in pieces, and says what may be shown already.
// Owns:    the stop strings and the text held back (shorter than the longest of them).
// Threads: one.
// Fails:   never.
//
// The match that ends first wins (of those, the one that starts first), so the outcome depends on
// the text alone, never on how it was cut into tokens.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coppice::engine {

class StopMatcher {
 public:
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  struct Output {
    std::string text;  // certain now
    bool stopped = false;
  };
  // After `stopped` nothing more may be pushed.
  Output push(std::string_view piece);
  // The text held back, once it is known that no more follows.
  std::string finish();

 private:
  struct Match {
    size_t begin = std::string::npos;
    size_t end = std::string::npos;
  };
  Match find() const;
  size_t held_back() const;

  std::vector<std::string> stops_;
  bool include_stop_;
  std::string pending_;
};

}  // namespace coppice::engine
