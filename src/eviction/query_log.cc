#include "eviction/query_log.h"

#include <utility>

#include "ops/passing_backend.h"

namespace coppice::eviction {

class LoggingBackend : public ops::PassingBackend {
 public:
  LoggingBackend(std::unique_ptr<ops::Backend> inner, std::shared_ptr<QueryLog> log)
      : PassingBackend(std::move(inner)), log_(std::move(log)) {}

  Status reserve(const ops::StepLimits& limits) override { return inner_->reserve(limits); }
  void attention(const TensorView& q, const ops::AttentionParams& params,
                 const ops::AttentionPlan& plan, const ops::KvArena& arena,
                 const TensorView& out) override {
    if (log_->listening_) note(q, static_cast<size_t>(params.layer));
    PassingBackend::attention(q, params, plan, arena, out);
  }

 private:
  void note(const TensorView& q, size_t layer) {
    log_->width_ = q.shape()[1] * q.shape()[2];
    if (layer >= log_->layers_.size()) log_->layers_.resize(layer + 1);
    std::vector<float>& rows = log_->layers_[layer];
    const size_t before = rows.size();
    rows.resize(before + static_cast<size_t>(q.elements()));
    inner_->to_host(q, rows.data() + before);
  }

  std::shared_ptr<QueryLog> log_;
};

std::unique_ptr<ops::Backend> logged(std::unique_ptr<ops::Backend> inner,
                                     std::shared_ptr<QueryLog> log) {
  return std::make_unique<LoggingBackend>(std::move(inner), std::move(log));
}

}  // namespace coppice::eviction
