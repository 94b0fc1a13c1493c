#include "model/gate.h"

#include "model/gate_policies.h"
#include "model/learned_gate.h"

namespace coppice::model {

Expected<std::unique_ptr<Gate>> Gate::open(const std::string& spec, const Checkpoint& base,
                                           ops::Backend& backend, const GateOptions& options) {
  if (spec.starts_with(kPolicyPrefix)) {
    return make_policy(spec.substr(kPolicyPrefix.size()), base.config());
  }
  return open_learned_gate(spec, base, backend, options);
}

void Gate::decide(int32_t layer, const GateInput& input, ops::GatePlan& plan) {
  for (const ops::GateRows& rows : plan.rows) fill_logits(layer, input, rows);
  ops::resolve_gate(plan, layer, input.logits);
}

}  // namespace coppice::model
