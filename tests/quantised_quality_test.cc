// What quantised weights and int8 keys and values cost the bundled model: the mean negative
// log-likelihood of held-out storefront documents, against the same weights dequantised and
// multiplied in double, and against keys and values in f32.
#include <gtest/gtest.h>

#include <unistd.h>
#include <cmath>
#include <cstdio>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "eval/storefront.h"
#include "model/gguf_export.h"
#include "model/test_golden.h"
#include "model/test_sequence.h"
#include "text/tokenizer.h"

namespace coppice::model::testing {
namespace {

constexpr int kDocuments = 4, kFacts = 16;

// A shop, a question and its answer, as the model was trained on.
std::vector<std::vector<int32_t>> documents(const text::Tokenizer& tokenizer) {
  std::vector<std::vector<int32_t>> out;
  for (uint64_t seed = 1; seed <= kDocuments; ++seed) {
    const auto shop = storefront::make_shop(seed, kFacts, storefront::Split::kHeldOut);
    const auto question = shop.questions().front();
    out.push_back(tokenizer.encode(shop.prompt() + question.text + question.answer, true));
  }
  return out;
}

// Nats per token after each document's first.
double mean_nll(const Checkpoint& checkpoint, const char* backend_name,
                const std::vector<std::vector<int32_t>>& documents, DType kv_type = DType::kF32) {
  const auto backend = make_backend(backend_name, DType::kF32, 2);
  const auto model =
      Model::load(checkpoint, *backend, {.max_rows = 512, .max_logit_rows = 512}).value();
  const auto vocab = static_cast<size_t>(checkpoint.config().vocab_size);
  double total = 0, tokens = 0;
  for (const auto& document : documents) {
    const auto length = static_cast<int32_t>(document.size());
    const auto logits = logits_in_slices(*backend, *model, kv_type, document, {length});
    for (size_t t = 0; t + 1 < document.size(); ++t, ++tokens) {
      const float* row = logits.data() + t * vocab;
      double sum = 0;
      for (size_t i = 0; i < vocab; ++i) sum += std::exp(double{row[i]});
      total += std::log(sum) - double{row[document[t + 1]]};
    }
  }
  return total / tokens;
}

class QuantisedQuality : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(, QuantisedQuality,
                         ::testing::Values(DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ5_K,
                                           DType::kQ6_K),
                         [](const auto& test) { return std::string(dtype_name(test.param)); });

TEST_P(QuantisedQuality, IsWithinHalfAPercentOfTheDequantisedArithmetic) {
  const std::string file = ::testing::TempDir() + "/quality_" +
                           std::string(dtype_name(GetParam())) + std::to_string(getpid()) + ".gguf";
  const auto bundled = Checkpoint::open(COPPICE_SOURCE_DIR "/models/storefront").value();
  ASSERT_TRUE(export_gguf(*bundled, file, {.type = GetParam(), .progress = {}}));
  const auto quantised = Checkpoint::open(file).value();
  std::filesystem::remove(file);  // it stays mapped
  const auto tokenizer =
      text::Tokenizer::load(bundled->tokenizer_json().value(), "models/storefront").value();
  const auto texts = documents(*tokenizer);
  const double plain = mean_nll(*bundled, "cpu", texts);
  const double want = mean_nll(*quantised, "ref", texts);
  const double got = mean_nll(*quantised, "cpu", texts);
  RecordProperty("nll_dequantised", std::to_string(want));
  RecordProperty("nll", std::to_string(got));
  RecordProperty("nll_of_the_plain_model", std::to_string(plain));
  EXPECT_LT(std::abs(std::exp(got - want) - 1), 0.005) << got << " nats, dequantised " << want;
  EXPECT_NE(got, want) << "the activations were not quantised";
  EXPECT_LT(plain, 4.0) << "documents the model does not know would show nothing";
}

TEST(KvQuality, Int8CostsAtMostHalfAPercent) {
  const auto bundled = Checkpoint::open(COPPICE_SOURCE_DIR "/models/storefront").value();
  const auto tokenizer =
      text::Tokenizer::load(bundled->tokenizer_json().value(), "models/storefront").value();
  const auto texts = documents(*tokenizer);
  const double want = mean_nll(*bundled, "cpu", texts);
  const double got = mean_nll(*bundled, "cpu", texts, DType::kI8);
  RecordProperty("nll_f32", std::to_string(want));
  RecordProperty("nll_int8", std::to_string(got));
  std::printf("nats per token: f32 %.5f, int8 %.5f\n", want, got);
  EXPECT_LT(std::exp(got - want) - 1, 0.005);
  EXPECT_NE(got, want) << "the keys and values were not quantised";
}

}  // namespace
}  // namespace coppice::model::testing
