// What:    the rows of a step whose keys and values may be dropped: what the cache knows of them
//          before the step, and how a layer's gate logits become lists, targets and bounds.
// Owns:    nothing: arrays of the cache, valid for the step.
// Threads: one, layer by layer.
// Fails:   never.
//
// Decided at birth (architecture, section 5): token t of a gated sequence goes to the kept list of
// a (layer, KV head) where its logit reaches the threshold or it is protected, else to the dropped
// list, both in order of position. A query row at t sees all kept tokens j <= t and those dropped
// with t - j < window: two contiguous ranges. Its own token is always among them.
//
//   kept     slots counted along the path:        [.. ancestors .. | start .. end)  -> one more
//   dropped  slots counted along the path too, of which only those that a row may still see are
//            held:                                             [start .. visible .. end)
//
// Pages for what may come are handed out as they are needed, from a stock that covers any decision.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/attention_plan.h"
#include "tensor/tensor.h"

namespace coppice::ops {

// Which tokens of a tier are kept.
struct GateRule {
  float threshold = 0;  // of the gate logit: kept where it is reached
  int32_t window = 1;   // a row sees the last `window` positions whatever the gate says; 1 to R
  int32_t sinks = 0;    // the first positions are always kept
  bool operator==(const GateRule&) const = default;
};

// One (layer, KV head) list of one sequence.
struct GateList {
  int32_t kept_end = 0;             // path slots kept so far
  int32_t dropped_end = 0;          // path slots dropped so far
  int32_t visible = 0;              // first dropped slot that the next row may see
  PageId* kept_pages = nullptr;     // this list's row of the kept part's table
  PageId* dropped_pages = nullptr;  // and of the dropped part's
  const PageId* stock = nullptr;    // pages to be handed out, ...
  int32_t stock_used = 0;           // ... of which so many are
  int32_t stock_size = 0;
  int32_t* positions = nullptr;  // of the dropped slots, from the dropped part's start on
  uint8_t* keep = nullptr;       // [rows] out: keep_byte() of each row's token
};

// The rows of one gated sequence.
struct GateRows {
  int32_t row_begin = 0;
  int32_t row_end = 0;
  int64_t position = 0;  // of row_begin
  GateRule rule;
  const uint8_t* exact = nullptr;     // [rows] 1: no gate may drop this token; null: none
  int32_t kept_part = 0;              // of the plan; its counts are `kept_counts`
  int32_t dropped_part = 0;           // its counts are `dropped_counts`
  int32_t* kept_counts = nullptr;     // [lists]
  int32_t* dropped_counts = nullptr;  // [lists]
  GateList* lists = nullptr;          // [lists]
  // A gate with memory: what it carries of the tokens before (Gate::memory_floats a layer).
  float* memory = nullptr;  // [L][memory floats], or null
};

// The gated rows of a plan; empty where every row is ungated.
struct GatePlan {
  AttentionPlan* plan = nullptr;
  int32_t page_slots = 0;
  std::vector<GateRows> rows;
  bool empty() const { return rows.empty(); }
};

// What is stored of a decision: 0 dropped, 255 protected (a sink, exact), else 2 + p * 252 of the
// keep probability p = sigmoid(logit), rounded down. Thinning puts 1 in its place: kept at birth,
// given back since.
inline constexpr uint8_t kDroppedByte = 0;
inline constexpr uint8_t kThinnedByte = 1;
inline constexpr uint8_t kProtectedByte = 255;
inline bool holds_slot(uint8_t keep) { return keep > kThinnedByte; }
uint8_t keep_byte(float logit);

// The most new pages that `rows` more tokens can take where the last kept and dropped pages have
// room for so many.
int32_t gate_pages_needed(int32_t rows, int32_t kept_room, int32_t dropped_room,
                          int32_t page_slots);

// Decides the layer's tokens by logits [T, Hkv] f32 on the host: fills targets and bounds of the
// layer's lists for all gated rows, and the lists themselves. NaN keeps.
void resolve_gate(GatePlan& gate, int32_t layer, const TensorView& logits);

}  // namespace coppice::ops
