// The twin that is trained and the engine that serves are one network: on the bundled weights, in
// f32, their logits agree to 1e-4.
#include <gtest/gtest.h>

#include "train/engine_logits.h"
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

  auto logits = engine_logits(kBundled, GetParam(), ids);
  ASSERT_TRUE(logits) << logits.error().message;
  ASSERT_EQ(static_cast<int64_t>(logits->size()), expected.numel());
  const auto got =
      torch::from_blob(logits->data(), {expected.size(0), expected.size(1)}, torch::kFloat32);
  EXPECT_GT((expected.max() - expected.min()).item<float>(), 5.0f);  // a network that has learned
  EXPECT_LE((got - expected).abs().max().item<float>(), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Backends, TwinAndEngine, testing::Values("ref", "cpu"));

}  // namespace
}  // namespace coppice::train
