// What:    a loaded network: token ids and a plan in, logits out. It never sees the cache.
// Owns:    its weights in the backend's layout and the activations of a step. The backend must
//          outlive it; the checkpoint may go once it is loaded.
// Threads: one calling thread.
// Fails:   check, load: as Checkpoint (a missing or misshapen tensor is named), kUnsupported for a
//          tensor that the architecture has no use for. load: kTooLarge with the bytes. forward
//          cannot fail.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "coppice/error.h"
#include "model/checkpoint.h"
#include "model/gate.h"
#include "ops/backend.h"

namespace coppice::model {

// A step of T rows, R of which ask for logits. Everything is held until forward returns.
struct ForwardInput {
  std::span<const int32_t> tokens;      // [T] in plan order, each in [0, V)
  std::span<const int32_t> positions;   // [T]
  std::span<const int32_t> owners;      // [T] index into `evaluated`, or empty
  std::span<int64_t> evaluated;         // counts the rows that entered the embedding, per owner
  std::span<const int32_t> logit_rows;  // [R] rows whose logits are wanted, R <= T
  const ops::AttentionPlan& plan;
  const ops::KvArena& arena;
  // Where some rows are gated: what decides, and the plan's gated rows. Otherwise the step is what
  // it is without a gate, call by call.
  Gate* gate = nullptr;
  ops::GatePlan* gated = nullptr;
};

struct ModelOptions {
  int32_t max_rows = 512;       // the most rows T a step will have
  int32_t max_logit_rows = 64;  // the most rows R whose logits a step will ask for
  // Bytes for weights, activations and what the caller has beside them; 0: no limit.
  int64_t memory_limit = 0;
  int64_t scratch_bytes = 0;  // the caller's already
  int64_t page_bytes = 0;     // and once the model is loaded
  // Plain matrices are stored as a model of this type has them (stored_type.h); quantised ones
  // stay what they are. Empty: every tensor as the file has it.
  std::optional<DType> weights = {};
  // Room for steps with gated rows: what the gate needs of them. Empty: there will be none.
  std::optional<GateNeeds> gate = {};
};

// done, total: bytes of weights as the file has them; called on the loading thread, after every
// tensor.
using LoadProgress = std::function<void(int64_t done, int64_t total)>;

class Model {
 public:
  // Whether the checkpoint's tensors are those of its architecture; none is read.
  static Status check(const Checkpoint& checkpoint);
  static Expected<std::unique_ptr<Model>> load(const Checkpoint& checkpoint, ops::Backend& backend,
                                               const ModelOptions& options,
                                               const LoadProgress& progress = {});
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  virtual int64_t weight_bytes() const = 0;      // in the backend's layout
  virtual int64_t activation_bytes() const = 0;  // allocated by load for good
  // logits [R, V] f32 on the host; valid until the next call. Allocates nothing.
  virtual TensorView forward(const ForwardInput& input) = 0;
};

}  // namespace coppice::model
