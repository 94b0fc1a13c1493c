// What:    the intermediate results of one step, allocated once for the largest step.
// Owns:    one buffer of the backend, the logits' place on the host and a gate's.
// Threads: one.
// Fails:   create: kTooLarge naming the bytes and the rows.
#pragma once

#include "model/model.h"

namespace coppice::model {

// Views of T rows; f32, dense. Letters as in ops/backend.h.
struct StepViews {
  TensorView x;     // [T, E] the residual stream
  TensorView h;     // [T, E] what a block reads and what it gives back
  TensorView q, a;  // [T, Hq D] queries, attention's output
  TensorView k, v;  // [T, Hkv D]
  TensorView gate;  // [T, F]
  TensorView up;    // [T, F]
  TensorView cos;   // [T, D/2]
  TensorView sin;   // [T, D/2]
  // [T, C] of the Attention-Gate, or empty
  TensorView gate_columns;
};

class Activations {
 public:
  static int64_t bytes_for(const ModelConfig& config, const ModelOptions& options);
  static Expected<Activations> create(ops::Backend& backend, const ModelConfig& config,
                                      const ModelOptions& options);

  StepViews step(int64_t rows) const;          // rows <= max_rows
  TensorView logits(int64_t rows) const;       // [R, V] of the backend; rows <= max_logit_rows
  TensorView host_logits(int64_t rows) const;  // [R, V] on the host
  // What the gate reads and writes, as the options' needs say, without the tokens.
  GateInput gate_input(int64_t rows) const;  // rows <= max_rows

 private:
  StepViews largest_;  // max_rows each
  TensorView logits_, host_logits_;
  GateInput largest_gate_;
  Buffer memory_, host_memory_;
};

}  // namespace coppice::model
