// The twin that is trained and the engine that serves are one network: on the bundled weights, in
// f32, their logits agree to 1e-4.
#include <numeric>

#include <gtest/gtest.h>

#include "model/model.h"
#include "model/test_sequence.h"
#include "ops/backends.h"
#include "train/twin.h"

namespace coppice::train {
namespace {

const std::string kBundled = COPPICE_SOURCE_DIR "/models/storefront";

// Tokens of the vocabulary in use, in an order without a pattern; three chunks and a remainder.
std::vector<int32_t> some_tokens() {
  std::vector<int32_t> ids(200);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(3 + i * 389 % 860);
  return ids;
}

class TwinAndEngine : public testing::TestWithParam<const char*> {};

TEST_P(TwinAndEngine, AgreeOnTheBundledModel) {
  const std::vector<int32_t> ids = some_tokens();
  const auto twin = Twin::load(kBundled);
  ASSERT_TRUE(twin) << twin.error().message;
  torch::NoGradGuard no_grad;
  const std::vector<int64_t> wide(ids.begin(), ids.end());
  const torch::Tensor expected =
      twin->logits(twin->hidden(torch::tensor(wide, torch::kInt64).unsqueeze(0)))
          .squeeze(0)
          .contiguous();

  auto backend = ops::make_backend(GetParam(), {.threads = 2, .weights = DType::kF32});
  ASSERT_TRUE(backend) << backend.error().message;
  const auto checkpoint = model::Checkpoint::open(kBundled);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  const auto rows = static_cast<int32_t>(ids.size());
  auto model = model::Model::load(**checkpoint, **backend, rows, {});
  ASSERT_TRUE(model) << model.error().message;
  model::testing::TestSequence sequence(**backend, (*model)->config(), DType::kF32, rows);
  std::vector<int32_t> all(ids.size());
  std::iota(all.begin(), all.end(), 0);
  const TensorView logits = sequence.step(**model, ids, all);

  ASSERT_EQ(logits.elements(), expected.numel());
  const auto got =
      torch::from_blob(logits.f32(), {expected.size(0), expected.size(1)}, torch::kFloat32);
  EXPECT_GT((expected.max() - expected.min()).item<float>(), 5.0f);  // a network that has learned
  EXPECT_LE((got - expected).abs().max().item<float>(), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Backends, TwinAndEngine, testing::Values("ref", "cpu"));

}  // namespace
}  // namespace coppice::train
