// What:    the queries that a model's attention asks, layer by layer, as it asks them: what the
//          scores of attention-based eviction are made of. A backend that notes them on the way.
// Owns:    the log its rows; the backend the one it wraps, and not the log.
// Threads: as the wrapped backend.
// Fails:   as the wrapped backend.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "ops/backend.h"

namespace coppice::eviction {

class QueryLog {
 public:
  // Rows of the attention calls from now on are noted, or not. Off at first.
  void listen(bool on) { listening_ = on; }
  void clear() { layers_.clear(); }
  // Forgets all rows but the first.
  void truncate(int64_t rows) {
    for (auto& layer : layers_) layer.resize(static_cast<size_t>(rows * width_));
  }
  // Rotated queries of a row [Hq, D], rows counted from clear().
  const float* row(int32_t layer, int64_t row) const {
    return layers_[static_cast<size_t>(layer)].data() + row * width_;
  }
  int64_t rows() const {
    return layers_.empty() ? 0 : static_cast<int64_t>(layers_.front().size()) / width_;
  }

 private:
  friend class LoggingBackend;
  bool listening_ = false;
  int64_t width_ = 1;                       // Hq D
  std::vector<std::vector<float>> layers_;  // [L][rows * width]
};

std::unique_ptr<ops::Backend> logged(std::unique_ptr<ops::Backend> inner,
                                     std::shared_ptr<QueryLog> log);

}  // namespace coppice::eviction
