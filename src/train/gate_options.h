// What:    what a gate's training is told: the flags of `coppice-train gate`.
// Owns:    plain values.
// Threads: any.
// Fails:   never.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "train/gate_data.h"
#include "train/gate_net.h"

namespace coppice::train {

enum class GateMethod {
  kLearned,  // by what the answers lose under the gate
  kKvzap,    // by what a replay of the context attends to (KVzip's score, KVzap's gate)
};

struct GateOptions {
  std::filesystem::path model;
  std::filesystem::path out;   // the gate file; the checkpoint stands beside it
  std::filesystem::path init;  // a gate file to start from; empty: none
  std::string log;             // JSONL, appended to; empty: none
  bool resume = false;

  GateMethod method = GateMethod::kLearned;
  GateKind kind = GateKind::kPoint;
  int64_t heads = 2, head_dim = 16, reach = 16;
  int64_t window = 16, sinks = 4;
  GateDataOptions data;

  uint64_t seed = 1;
  int64_t steps = 1000;
  double learning_rate = 2e-3;
  int64_t length = 1024;       // tokens of a sample, at most
  int64_t shortest = 0;        // and at least; 0: a quarter of that
  int64_t step_tokens = 4096;  // about; a step takes whole samples
  int most_rows = 256;         // predictions of a sample that are learned from

  // A sequence's tier u in [0, 1] adds shift (1 - 2 u) to its logits; its keep target goes from
  // keep_most to keep_least with u, as powers.
  double shift = 2.0;
  double keep_most = 0.5, keep_least = 0.125;
  double ramp = 0.75;  // share of the steps over which targets come down from 1
  double kd = 1.0, alpha = 5.0, gamma = 0.02;  // kd 0: no teacher, and all answers count
  double noise = 1.0;  // scale of the logistic noise; none in the last tenth of the steps
  bool soft = false;   // coefficients instead of decisions
  double soft_floor = 1e-3;
  bool value_norms = false;  // kvzap: scores count by |Wo v| / |x|

  int64_t lora = 0;                // rank of adapters on q, k, v, o; 0: the base is frozen
  std::filesystem::path lora_out;  // where the merged base goes

  int exam_contexts = 4, exam_asks = 12;  // of a case in the report
  int64_t exam_length = 0;                // of their prompts; 0: `length`
  int64_t page_slots = 16;                // of the cache's pages
  int64_t report_every = 20;
  int64_t save_seconds = 240;
  int threads = 2;
  std::function<bool()> interrupted;  // asked after every step; empty: never
};

}  // namespace coppice::train
