// What:    a loaded network: token ids and a plan in, logits out. It never sees the cache.
// Owns:    its weights in the backend's layout and the activations of a step.
// Threads: one calling thread.
// Fails:   load: as Checkpoint, or kTooLarge. forward cannot fail.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "coppice/error.h"
#include "model/checkpoint.h"
#include "ops/backend.h"

namespace coppice::model {

struct ForwardInput {
  std::span<const int32_t> tokens;      // [T] in plan order
  std::span<const int32_t> positions;   // [T]
  std::span<const int32_t> owners;      // [T] index into `evaluated`, or empty
  std::span<int64_t> evaluated;         // counts the rows that entered the embedding, per owner
  std::span<const int32_t> logit_rows;  // [R] rows whose logits are wanted
  const ops::AttentionPlan& plan;
  const ops::KvArena& arena;
};

// done, total in bytes of weights; called on the loading thread.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

class Model {
 public:
  // max_rows: the most rows T a step will have; activations are allocated once for it.
  static Expected<std::unique_ptr<Model>> load(const Checkpoint& checkpoint, ops::Backend& backend,
                                               int32_t max_rows, const LoadProgress& progress);
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual int64_t weight_bytes() const = 0;
  virtual int64_t activation_bytes() const = 0;
  // logits [R, V] f32 on the host; valid until the next call.
  virtual TensorView forward(const ForwardInput& input) = 0;
};

}  // namespace coppice::model
