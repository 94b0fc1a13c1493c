#include "engine/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace coppice::engine {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : stops_(std::move(stops)), include_stop_(include_stop) {}

StopMatcher::Match StopMatcher::find() const {
  Match best;
  for (const std::string& stop : stops_) {
    const size_t begin = pending_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < best.end || (end == best.end && begin < best.begin)) best = {begin, end};
  }
  return best;
}

// Length of the longest end of the pending text that a stop string begins with.
size_t StopMatcher::held_back() const {
  size_t longest = 0;
  const std::string_view text = pending_;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, text.size()); length > longest; --length) {
      if (text.substr(text.size() - length) == std::string_view(stop).substr(0, length)) {
        longest = length;
      }
    }
  }
  return longest;
}

StopMatcher::Output StopMatcher::push(std::string_view piece) {
  pending_ += piece;
  if (const Match match = find(); match.end != std::string::npos) {
    pending_.resize(include_stop_ ? match.end : match.begin);
    return {std::exchange(pending_, {}), true};
  }
  const size_t certain = pending_.size() - held_back();
  Output out{pending_.substr(0, certain), false};
  pending_.erase(0, certain);
  return out;
}

std::string StopMatcher::finish() { return std::exchange(pending_, {}); }

}  // namespace coppice::engine
