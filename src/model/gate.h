// What:    what decides of which tokens a layer keeps keys and values: learned gates and fixed
//          policies behind one face.
// Owns:    its weights in the backend's layout; the backend must outlive it.
// Threads: one calling thread.
// Fails:   open: as GateFile::open; kInvalidArgument for a policy, naming what works; kUnsupported
//          for a kind that cannot be served; kCorrupt for a gate of another model. decide cannot
//          fail.
//
// A decision depends on its token and the tokens before it alone, never on how they were cut into
// steps or on the rows beside them (architecture, section 5): to the bit.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "coppice/error.h"
#include "model/checkpoint.h"
#include "model/gate_header.h"
#include "ops/backend.h"
#include "ops/gate_plan.h"

namespace coppice::model {

// What a gate reads of a step; the model makes room for it.
struct GateNeeds {
  int32_t columns = 0;  // C: outputs of a product of its own with a layer's normed input
  int32_t angles = 0;   // A: rotary angles of its own
  bool keys = false;    // the layer's keys
  bool operator==(const GateNeeds&) const = default;
};

// A layer of a step of T rows, on the host. Views that needs() does not ask for are empty.
struct GateInput {
  std::span<const int32_t> tokens = {};  // [T]
  // [T, C] u . weight(layer)^T, where u is what q, k and v are made of
  TensorView columns = {};
  TensorView cos = {}, sin = {};  // [T, A]
  TensorView keys = {};           // [T, Hkv D] normed, not yet rotated
  TensorView logits = {};         // [T, Hkv] room for what decide() makes of the gated rows
};

struct GateOptions {
  bool any_base = false;  // take a gate that was trained on another model
  // Take a global gate too, which reads a whole prompt in one step; it is not to be served.
  bool evaluation = false;
};

// What open() takes for a policy: this, a name and settings (gate_policies.h).
inline constexpr std::string_view kPolicyPrefix = "policy:";

class Gate {
 public:
  // spec: a gate file's path, or "policy:NAME[,key=value...]".
  static Expected<std::unique_ptr<Gate>> open(const std::string& spec, const Checkpoint& base,
                                              ops::Backend& backend,
                                              const GateOptions& options = {});
  virtual ~Gate() = default;

  virtual std::string describe() const = 0;  // for people, one line
  // Two gates of one hash decide alike; what is computed under another's decisions is not shared.
  virtual uint64_t hash() const = 0;
  virtual ops::GateRule rule(GateTier tier) const = 0;
  virtual bool decides_generated() const { return true; }       // else generated tokens are kept
  virtual const GateHeader* header() const { return nullptr; }  // of a learned gate
  virtual GateNeeds needs() const { return {}; }
  virtual int64_t weight_bytes() const { return 0; }
  virtual const ops::Weight* weight(int32_t layer) const { return nullptr; }  // [C, E]; C 0: null
  virtual std::span<const float> rope_inv_freq() const { return {}; }         // [A]
  // What GateRows::memory holds for each layer: a function of the tokens before.
  virtual int64_t memory_floats() const { return 0; }

  // Fills the layer's lists, targets and bounds of all gated rows (ops::resolve_gate).
  void decide(int32_t layer, const GateInput& input, ops::GatePlan& plan);

 protected:
  // Logits of rows [row_begin, row_end), and their part of the memory.
  virtual void fill_logits(int32_t layer, const GateInput& input, const ops::GateRows& rows) = 0;
};

}  // namespace coppice::model
