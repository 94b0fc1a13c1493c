// What:    where the time of the engine's steps went, beside what the backend's operations took.
// Owns:    the counters, and a share of the backend's.
// Threads: the engine's.
// Fails:   never. Without a profile of operations every call does nothing.
#pragma once

#include <array>
#include <chrono>
#include <memory>
#include <utility>

#include "coppice/profile.h"
#include "model/config.h"
#include "ops/op_profile.h"

namespace coppice::engine {

class StepProfile {
 public:
  enum Part { kPlan, kModel, kSampling, kCommit, kParts };

  explicit StepProfile(std::shared_ptr<ops::OpProfile> operations)
      : operations_(std::move(operations)) {}

  // A step: begin(), then lap(part) at the end of each part.
  void begin() {
    if (operations_ != nullptr) mark();
  }
  void lap(Part part) {
    if (operations_ == nullptr) return;
    const Clock::time_point since = last_;
    const double operations = operations_seconds_;
    mark();
    const std::chrono::duration<double> spent = last_ - since;
    seconds_[part] += spent.count() - (operations_seconds_ - operations);
  }
  void end_step(int64_t rows) {
    if (operations_ == nullptr) return;
    ++steps_;
    rows_ += rows;
  }

  void reset();
  Profile report(const model::ModelConfig& config) const;

 private:
  using Clock = std::chrono::steady_clock;

  void mark() {
    last_ = Clock::now();
    operations_seconds_ = operations_->seconds();
  }

  std::shared_ptr<ops::OpProfile> operations_;
  Clock::time_point last_;
  double operations_seconds_ = 0;         // at that time
  std::array<double, kParts> seconds_{};  // without the operations
  int64_t steps_ = 0, rows_ = 0;
};

}  // namespace coppice::engine
