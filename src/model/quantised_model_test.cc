// Models whose weights stay quantised: how far from the dequantised arithmetic they are, and that
// slices and threads change no bit of theirs either.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "model/gguf_export.h"
#include "model/random_checkpoint.h"
#include "model/test_files.h"
#include "model/test_golden.h"
#include "model/test_sequence.h"

namespace coppice::model::testing {
namespace {

constexpr int32_t kTokens = 96;
constexpr const char* kShape = "512,3,8,2,64,1024,600";

class QuantisedModel : public ::testing::TestWithParam<DType> {
 protected:
  QuantisedModel() {
    std::mt19937 random(5);
    for (int32_t& token : tokens_) token = static_cast<int32_t>(random() % 600);
    const auto from = *open_random(kShape);
    const Status written =
        export_gguf(*from, dir_.path() + "/m.gguf", {.type = GetParam(), .progress = {}});
    EXPECT_TRUE(written);
    checkpoint_ = *Checkpoint::open(dir_.path() + "/m.gguf");
  }

  // Logits [kTokens, V] after every token.
  std::vector<float> logits(const char* backend_name, int threads,
                            const std::vector<int32_t>& slices) {
    const auto backend = make_backend(backend_name, DType::kF32, threads);
    const auto model =
        Model::load(*checkpoint_, *backend, {.max_rows = kTokens, .max_logit_rows = kTokens})
            .value();
    return logits_in_slices(*backend, *model, DType::kF32, tokens_, slices);
  }

  const TemporaryDirectory dir_;
  std::vector<int32_t> tokens_ = std::vector<int32_t>(kTokens);
  std::unique_ptr<Checkpoint> checkpoint_;
};
INSTANTIATE_TEST_SUITE_P(, QuantisedModel,
                         ::testing::Values(DType::kQ8_0, DType::kQ4_0, DType::kQ4_K),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

// Mean over rows of KL(p || q), nats.
double divergence(const std::vector<float>& p, const std::vector<float>& q, size_t vocab) {
  double total = 0;
  for (size_t at = 0; at < p.size(); at += vocab) {
    double sum_p = 0, sum_q = 0;
    for (size_t i = at; i < at + vocab; ++i) {
      sum_p += std::exp(double{p[i]});
      sum_q += std::exp(double{q[i]});
    }
    for (size_t i = at; i < at + vocab; ++i) {
      const double log_p = double{p[i]} - std::log(sum_p), log_q = double{q[i]} - std::log(sum_q);
      total += std::exp(log_p) * (log_p - log_q);
    }
  }
  return total / (static_cast<double>(p.size()) / static_cast<double>(vocab));
}

// `ref` computes with the dequantised weights in double; what is between are 8-bit activations.
TEST_P(QuantisedModel, IsNearTheDequantisedArithmetic) {
  const std::vector<float> want = logits("ref", 1, {kTokens}), got = logits("cpu", 2, {kTokens});
  const double kl = divergence(want, got, 600);
  EXPECT_LT(kl, 1e-3);
  EXPECT_GT(kl, 1e-9) << "the activations were not quantised";
  RecordProperty("kl", std::to_string(kl));
}

TEST_P(QuantisedModel, SlicesAndThreadsChangeNoBit) {
  const std::vector<float> whole = logits("cpu", 1, {kTokens});
  EXPECT_EQ(logits("cpu", 2, std::vector<int32_t>(kTokens, 1)), whole);
  EXPECT_EQ(logits("cpu", 2, {7, 1, 64, 24}), whole);
}

}  // namespace
}  // namespace coppice::model::testing
