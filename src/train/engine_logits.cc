#include "train/engine_logits.h"

#include <numeric>

#include "model/model.h"
#include "model/test_golden.h"
#include "model/test_sequence.h"
#include "ops/backends.h"

namespace coppice::train {

Expected<std::vector<float>> engine_logits(const std::string& directory, const std::string& backend,
                                           const std::vector<int32_t>& ids) {
  TRY(const auto ops, ops::make_backend(backend, {.threads = 2, .weights = DType::kF32}));
  TRY(const auto checkpoint, model::Checkpoint::open(directory));
  const auto rows = static_cast<int32_t>(ids.size());
  TRY(const auto model,
      model::Model::load(*checkpoint, *ops, {.max_rows = rows, .max_logit_rows = rows}, {}));
  model::testing::TestSequence sequence(*ops, model->config(), DType::kF32, rows);
  std::vector<int32_t> all(ids.size());
  std::iota(all.begin(), all.end(), 0);
  const TensorView logits = sequence.step(*model, ids, all);
  return std::vector<float>(logits.f32(), logits.f32() + logits.elements());
}

Golden read_golden(const std::string& name) {
  using namespace model::testing;
  Golden golden{golden_ids(name, "prompt_ids"), golden_logits<float>(name, "golden.f32")};
  const std::vector<int32_t> greedy = golden_ids(name, "greedy_ids");
  // The last token decoded was not fed again.
  golden.ids.insert(golden.ids.end(), greedy.begin(), greedy.end() - 1);
  return golden;
}

}  // namespace coppice::train
