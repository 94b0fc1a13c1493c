// What:    results that finish in any order, handed on in the order of their slots.
// Owns:    results that wait for an earlier one.
// Threads: one.
// Fails:   never; a slot filled twice is a programmer error.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#include "base/check.h"
#include "coppice/request.h"

namespace coppice::tools {

class OutputOrder {
 public:
  using Print = std::function<void(int64_t slot, const Result&)>;
  OutputOrder(int64_t slots, Print print) : slots_(slots), print_(std::move(print)) {}

  void put(int64_t slot, Result result) {
    CHECK(slot >= next_ && slot < slots_);
    CHECK(waiting_.emplace(slot, std::move(result)).second);
    while (!waiting_.empty() && waiting_.begin()->first == next_) {
      print_(next_++, waiting_.begin()->second);
      waiting_.erase(waiting_.begin());
    }
  }

 private:
  const int64_t slots_;
  const Print print_;
  int64_t next_ = 0;
  std::map<int64_t, Result> waiting_;
};

}  // namespace coppice::tools
