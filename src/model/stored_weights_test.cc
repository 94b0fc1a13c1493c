// Weights that are quantised as they are loaded: bit for bit the model that a file of that type
// holds.
#include <gtest/gtest.h>

#include <numeric>
#include <sstream>
#include <string>
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

// Matrices whose rows are whole blocks, and, in the last, some whose rows are not.
TEST_F(StoredWeights, AreThoseOfTheFile) {
  std::vector<std::unique_ptr<Checkpoint>> models;
  for (const char* golden : {"llama", "llama3", "qwen3"}) models.push_back(open_golden(golden));
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

Expected<std::unique_ptr<Model>> load_within(const Checkpoint& checkpoint, int64_t limit,
                                             std::optional<DType> weights,
                                             const LoadProgress& progress = {}) {
  const auto backend = make_backend("cpu", DType::kBF16);
  return Model::load(
      checkpoint, *backend,
      {.max_rows = 1, .max_logit_rows = 1, .memory_limit = limit, .weights = weights}, progress);
}

TEST_F(StoredWeights, CountAsTheyAreHeld) {
  const auto model = file_of(**open_random("256,2,4,2,64,512,300"), DType::kBF16);
  const auto loaded = load_within(*model, 0, DType::kQ8_0).value();
  // The last matrix, a bf16 one of 256 rows of 512, and its row lie beside them while it is read.
  const int64_t limit = loaded->weight_bytes() + dtype_bytes(DType::kQ8_0, 256 * 512) + 4 * 512;
  ASSERT_GE(limit, loaded->weight_bytes() + loaded->activation_bytes());
  std::vector<int64_t> done;
  EXPECT_TRUE(load_within(*model, limit, DType::kQ8_0, [&](int64_t bytes, int64_t total) {
    done.push_back(bytes);
    EXPECT_LE(bytes, total);
  }));
  EXPECT_EQ(done.size(), model->names().size());
  const auto plain = load_within(*model, limit, {});
  ASSERT_FALSE(plain);
  EXPECT_EQ(plain.error().code, ErrorCode::kTooLarge);
}

// The limit bounds what lies beside the weights while they are converted, not only what remains:
// here that is more than the activations, which come later.
TEST_F(StoredWeights, CountWhileTheyAreConverted) {
  const auto model = open_golden("llama");
  const ModelConfig& config = model->config();
  ASSERT_FALSE(config.tie_word_embeddings);  // the output matrix is the last
  const auto loaded = load_within(*model, 0, DType::kQ8_0).value();
  const int64_t converted =
      dtype_bytes(DType::kQ8_0, int64_t{config.vocab_size} * config.hidden_size) +
      dtype_bytes(DType::kF32, config.hidden_size);
  ASSERT_GT(converted, loaded->activation_bytes());
  const int64_t limit = loaded->weight_bytes() + converted;
  EXPECT_TRUE(load_within(*model, limit, DType::kQ8_0));
  const auto refused = load_within(*model, limit - 1, DType::kQ8_0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kTooLarge);
  std::ostringstream message;
  message << "--memory " << limit - 1
          << " cannot hold the model; loading lm_head.weight needs at least " << limit << " bytes, "
          << converted << " of them only while it is read";
  EXPECT_EQ(refused.error().message, message.str());
}

// A matrix counts as the backend will hold it, here in twice the bytes of its copy, before it is
// loaded: together they are more than the limit.
TEST_F(StoredWeights, CountAsTheBackendWillHoldThem) {
  const auto model = *open_random("256,2,4,2,64,512,300");  // a norm behind the last matrix
  const auto within = [&](int64_t limit) {
    const auto backend = make_backend("cpu", DType::kF32);
    return Model::load(*model, *backend,
                       {.max_rows = 1, .max_logit_rows = 1, .memory_limit = limit});
  };
  const auto loaded = within(0).value();
  const int64_t limit = loaded->weight_bytes() - 4 * 256 + 2 * 256 * 512;
  ASSERT_GE(limit, loaded->weight_bytes() + loaded->activation_bytes() + 1);
  EXPECT_TRUE(within(limit));
  const auto refused = within(limit - 1);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find(std::to_string(limit)), std::string::npos)
      << refused.error().message;
}

// What a checkpoint says that it will copy is what it copies.
TEST_F(StoredWeights, CopiesAreForeseen) {
  std::vector<std::unique_ptr<Checkpoint>> models;
  models.push_back(open_golden("llama"));
  models.push_back(*open_random("256,2,4,2,64,512,300"));
  models.push_back(file_of(*models.back(), DType::kQ4_K));
  models.push_back(file_of(*models.front(), DType::kBF16));
  std::vector<size_t> copied;
  for (const auto& model : models) {
    copied.push_back(0);
    for (const std::string& name : model->names()) {
      const Shape shape = *model->shape(name);
      const TensorForm form = *model->check(name, shape);
      const TensorData data = *model->tensor(name, shape);
      EXPECT_EQ(form.type, data.view.type()) << model->path() << " " << name;
      EXPECT_EQ(form.copy_bytes, data.copy.bytes()) << model->path() << " " << name;
      if (form.copy_bytes > 0) ++copied.back();
    }
  }
  EXPECT_EQ(copied[0], 0U);                         // mapped
  EXPECT_EQ(copied[1], models[1]->names().size());  // random ones are made, one at a time
  EXPECT_EQ(copied[2], 4U);                         // queries' and keys' rows are in another order
  EXPECT_EQ(copied[3], 2U * static_cast<size_t>(models[0]->config().num_hidden_layers));
}

}  // namespace
}  // namespace coppice::model::testing
