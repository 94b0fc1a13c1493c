// Weights that are quantised as they are loaded: bit for bit the model that a file of that type
// holds.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "model/gguf_export.h"
#include "model/random_checkpoint.h"
#include "model/test_files.h"
#include "model/test_golden.h"
#include "model/test_sequence.h"

namespace coppice::model::testing {
namespace {

constexpr int32_t kTokens = 24;

struct Outcome {
  std::vector<float> logits;  // [kTokens, V]
  int64_t weight_bytes = 0;
  bool operator==(const Outcome&) const = default;
};

Outcome run(const Checkpoint& checkpoint, std::optional<DType> weights, DType compute) {
  const auto backend = make_backend("cpu", compute, 2);
  const auto model =
      Model::load(checkpoint, *backend,
                  {.max_rows = kTokens, .max_logit_rows = kTokens, .weights = weights})
          .value();
  std::vector<int32_t> tokens(kTokens);
  std::iota(tokens.begin(), tokens.end(), 5);
  return {logits_in_slices(*backend, *model, DType::kF32, tokens, {kTokens}),
          model->weight_bytes()};
}

class StoredWeights : public ::testing::Test {
 protected:
  std::unique_ptr<Checkpoint> file_of(const Checkpoint& from, DType type) {
    const std::string path = dir_.path() + "/" + std::to_string(++files_) + ".gguf";
    EXPECT_TRUE(export_gguf(from, path, {.type = type, .threads = 2, .progress = {}}));
    return Checkpoint::open(path).value();
  }

  const TemporaryDirectory dir_;
  int files_ = 0;
};

// Matrices whose rows are whole blocks, and, in the second, some whose rows are not.
TEST_F(StoredWeights, AreThoseOfTheFile) {
  std::vector<std::unique_ptr<Checkpoint>> models;
  for (const char* golden : {"llama", "qwen3"}) models.push_back(open_golden(golden));
  models.push_back(*open_random("80,2,4,2,20,160,300"));
  for (const auto& model : models) {
    for (const DType compute : {DType::kBF16, DType::kF32}) {
      const Outcome at_load = run(*model, DType::kQ8_0, compute);
      EXPECT_EQ(at_load, run(*file_of(*model, DType::kQ8_0), {}, compute)) << model->path();
      EXPECT_NE(at_load.logits, run(*model, {}, compute).logits) << model->path();
    }
  }
}

TEST_F(StoredWeights, WhatIsQuantisedStaysWhatItIs) {
  const auto file = file_of(**open_random("256,2,4,2,64,512,300"), DType::kQ4_K);
  EXPECT_EQ(run(*file, DType::kQ8_0, DType::kBF16), run(*file, {}, DType::kBF16));
}

TEST_F(StoredWeights, CountAsTheyAreHeld) {
  const auto model = *open_random("256,2,4,2,64,512,300");
  const auto backend = make_backend("cpu", DType::kBF16);
  ModelOptions options{.max_rows = 1, .max_logit_rows = 1, .weights = DType::kQ8_0};
  const auto loaded = Model::load(*model, *backend, options).value();
  options.memory_limit = loaded->weight_bytes() + loaded->activation_bytes();
  std::vector<int64_t> done;
  EXPECT_TRUE(Model::load(*model, *backend, options, [&](int64_t bytes, int64_t total) {
    done.push_back(bytes);
    EXPECT_LE(bytes, total);
  }));
  EXPECT_EQ(done.size(), model->names().size());
  options.weights = {};
  const auto plain = Model::load(*model, *backend, options);
  ASSERT_FALSE(plain);
  EXPECT_EQ(plain.error().code, ErrorCode::kTooLarge);
}

}  // namespace
}  // namespace coppice::model::testing
