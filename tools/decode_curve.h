// What:    sequences over one shared prompt that decode token by token through the cache, one
// layer:
//          what a step costs with appends and planning, two-phase and otherwise.
// Owns:    the backend, a cache with shared pages and one with private copies.
// Threads: one; the backend's workers below.
// Fails:   create: as AttentionCase::create.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "coppice/error.h"
#include "kv/kv_cache.h"
#include "ops/backends.h"

namespace coppice::tools {

struct DecodeShape {
  int32_t heads = 32, head_dim = 128;  // as many KV heads
  int32_t batch = 32;
  int32_t shared = 0;   // tokens of the prompt
  int32_t longest = 0;  // tokens that will be decoded at most
};

class DecodeCurve {
 public:
  // Microseconds of one step for all sequences: reserve, plan, write, attention, commit, append.
  struct StepTimes {
    double two_phase = 0;
    double per_sequence = 0;  // over the same pages
    std::optional<double> copies;
  };

  static Expected<std::unique_ptr<DecodeCurve>> create(const DecodeShape& shape,
                                                       const ops::BackendOptions& options);
  // The next token of every sequence; `timed` or without its attention.
  StepTimes step(bool timed);

 private:
  struct Pages {
    std::unique_ptr<kv::KvCache> cache;
    std::vector<kv::SequenceId> ids;
  };

  DecodeCurve(const DecodeShape& shape, std::unique_ptr<ops::Backend> backend);
  int64_t bytes(bool shared) const;
  Status build(bool shared, std::optional<Pages>& out);
  void write(Pages& pages, const kv::Step& step);
  void attend(Pages& pages, kv::Partition partition);
  void finish(Pages& pages);

  DecodeShape shape_;
  std::unique_ptr<ops::Backend> backend_;
  int32_t decoded_ = 0;
  std::vector<float> rows_;     // [kSlice, H, D]: what keys and values are
  std::vector<float> q_, out_;  // [batch, H, D]
  std::optional<Pages> shared_, copies_;
};

}  // namespace coppice::tools
