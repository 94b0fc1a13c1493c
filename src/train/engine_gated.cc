#include "train/engine_gated.h"

#include <algorithm>

#include "model/gate.h"
#include "model/gated_test_sequence.h"
#include "ops/backends.h"

namespace coppice::train {

Expected<EngineGated> engine_gated(const std::string& directory, const std::string& gate_file,
                                   model::GateTier tier, const std::string& backend,
                                   const std::vector<int32_t>& ids, int32_t slice) {
  TRY(const auto ops, ops::make_backend(backend, {.threads = 2, .weights = DType::kF32}));
  TRY(const auto checkpoint, model::Checkpoint::open(directory));
  TRY(const auto gate, model::Gate::open(gate_file, *checkpoint, *ops));
  const auto tokens = static_cast<int32_t>(ids.size());
  TRY(const auto model,
      model::Model::load(*checkpoint, *ops,
                         {.max_rows = slice, .max_logit_rows = slice, .gate = gate->needs()}));
  const model::ModelConfig& config = model->config();
  model::testing::GatedTestCache cache(*ops, config, DType::kF32, tokens, gate.get());
  model::testing::GatedTestSequence& sequence = cache.begin(gate->rule(tier));
  EngineGated out;
  for (int32_t at = 0; at < tokens; at += slice) {
    const std::span<const int32_t> some(ids.data() + at,
                                        static_cast<size_t>(std::min(slice, tokens - at)));
    model::testing::GatedTestCache::Step step(cache, {{sequence, some}});
    const TensorView logits = step.forward(*model);
    out.logits.insert(out.logits.end(), logits.f32(), logits.f32() + logits.elements());
  }
  out.stored = sequence.keep();
  return out;
}

}  // namespace coppice::train
