// What:    a backend that times what is asked of another one: seconds, flops and bytes per kind of
//          operation.
// Owns:    OpProfile the counters; the wrapping backend the wrapped one.
// Threads: as the wrapped one; the counters are its caller's.
// Fails:   as the wrapped one.
//
// A decorator at the waist sees every operation of every model and backend, and costs nothing where
// it is not put in. Bytes are the least that a call must move: each operand once.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "ops/backend.h"

namespace coppice::ops {

struct OpCount {
  std::string name;
  // Of a product: the weight's shape [N, K]. Else 0.
  int64_t n = 0, k = 0;
  // What is multiplied: quantised weights as they are, plain ones in their compute type, or keys
  // and values; none where nothing is.
  std::optional<DType> type;
  int64_t calls = 0;
  double seconds = 0, flops = 0, bytes = 0, exps = 0;
};

class OpProfile {
 public:
  const std::deque<OpCount>& counts() const { return counts_; }
  double seconds() const;  // all of them
  void reset();            // the kinds stay

 private:
  friend class ProfilingBackend;
  // Counters stay where they are: one for each name, shape and type.
  OpCount& count(const std::string& name, int64_t n, int64_t k, std::optional<DType> type);

  std::deque<OpCount> counts_;
};

// plain: the compute type of plain weights that `inner` was made with.
std::unique_ptr<Backend> profiled(std::unique_ptr<Backend> inner, DType plain,
                                  std::shared_ptr<OpProfile> profile);

}  // namespace coppice::ops
