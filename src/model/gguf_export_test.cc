// What is written is read back: by this build's reader here, by llama.cpp's own readers through
// scripts/goldens/gguf.py, which judges what they share.
#include "model/gguf_export.h"

#include <cmath>
#include <string>
#include <vector>

#include "model/random_checkpoint.h"
#include "model/test_config.h"
#include "model/test_files.h"
#include "tensor/widen.h"

namespace coppice::model {
namespace {

const std::string kModels = COPPICE_TEST_DATA "/models/";

std::vector<float> values(const TensorView& view) {
  const int64_t cols = view.shape()[view.shape().rank() - 1];
  const TensorView rows = view.reshaped({view.elements() / cols, cols});
  std::vector<float> out(static_cast<size_t>(view.elements()));
  for (int64_t n = 0; n < rows.shape()[0]; ++n) widen_row(rows, n, out.data() + n * cols);
  return out;
}

double relative_error(const std::vector<float>& want, const std::vector<float>& got) {
  double error = 0, size = 1e-30;
  for (size_t i = 0; i < want.size(); ++i) {
    error += std::pow(double{want[i]} - double{got[i]}, 2);
    size += std::pow(double{want[i]}, 2);
  }
  return std::sqrt(error / size);
}

std::unique_ptr<Checkpoint> exported(const Checkpoint& from, const std::string& path, DType type) {
  const Status status = export_gguf(from, path, {.type = type, .progress = {}});
  EXPECT_TRUE(status) << status.error().message;
  auto read = Checkpoint::open(path);
  EXPECT_TRUE(read) << read.error().message;
  return std::move(*read);
}

// Every golden: F32 is the same to the last bit, each type within its rounding.
TEST(GgufExport, WhatIsWrittenIsReadBack) {
  const TemporaryDirectory dir;
  for (const char* model : {"llama", "llama3", "qwen2", "qwen3"}) {
    const auto from = Checkpoint::open(kModels + model);
    ASSERT_TRUE(from) << from.error().message;
    for (const auto& [type, bound] : {std::pair{DType::kF32, 0.0},
                                      {DType::kBF16, 0.004},
                                      {DType::kQ8_0, 0.01},
                                      {DType::kQ4_0, 0.12}}) {
      const auto read = exported(**from, dir.path() + "/x.gguf", type);
      const ModelConfig& config = (*from)->config();
      expect_same_config(config, read->config());
      EXPECT_EQ(config.bos_token_id, read->config().bos_token_id);
      EXPECT_EQ(config.eos_token_ids, read->config().eos_token_ids);
      int matrices = 0;
      for (const std::string& name : (*from)->names()) {
        if (!read->has(name)) {
          EXPECT_EQ(name, "lm_head.weight");  // tied
          continue;
        }
        const Shape shape = *(*from)->shape(name);
        const auto want = (*from)->tensor(name, shape), got = read->tensor(name, shape);
        ASSERT_TRUE(want && got) << name;
        matrices += shape.rank() == 2 && got->view.type() == type ? 1 : 0;
        EXPECT_LE(relative_error(values(want->view), values(got->view)), bound)
            << model << " " << name << " as " << dtype_name(type);
      }
      EXPECT_GE(matrices, 7) << model << " as " << dtype_name(type);
    }
  }
}

TEST(GgufExport, RowsThatAreNoWholeBlocksTakeTheNextType) {
  const TemporaryDirectory dir;
  const auto from = *open_random("256,1,4,2,10,96,300");  // K = 256, 40, 96
  const auto read = exported(*from, dir.path() + "/x.gguf", DType::kQ4_K);
  const auto type = [&](const std::string& name) { return *read->check(name, *from->shape(name)); };
  EXPECT_EQ(type("model.embed_tokens.weight"), DType::kQ8_0);
  EXPECT_EQ(type("model.layers.0.self_attn.q_proj.weight"), DType::kQ4_K);
  EXPECT_EQ(type("model.layers.0.self_attn.o_proj.weight"), DType::kBF16);
  EXPECT_EQ(type("model.layers.0.mlp.down_proj.weight"), DType::kQ8_0);
  EXPECT_EQ(type("model.norm.weight"), DType::kF32);
}

TEST(GgufExport, TheTokenizerSurvives) {
  const TemporaryDirectory dir;
  const auto from = Checkpoint::open(kModels + "llama");
  ASSERT_TRUE(from);
  const auto read = exported(**from, dir.path() + "/x.gguf", DType::kQ8_0);
  const auto first = read->tokenizer_json();
  ASSERT_TRUE(first) << first.error().message;
  const auto again = exported(*read, dir.path() + "/y.gguf", DType::kQ8_0);
  EXPECT_EQ(*first, *again->tokenizer_json());
}

TEST(GgufExport, RefusesAndLeavesNothingBehind) {
  const TemporaryDirectory dir;
  const auto from = *open_random("tiny");
  const auto refused =
      export_gguf(*from, dir.path() + "/x.gguf", {.type = DType::kQ6_K, .progress = {}});
  ASSERT_FALSE(refused);
  EXPECT_TRUE(contains(refused.error().message, "f32, f16, bf16, q8_0, q4_0 and q4_k"));
  const auto nowhere = export_gguf(*from, dir.path() + "/no/x.gguf", {});
  ASSERT_FALSE(nowhere);
  EXPECT_TRUE(contains(nowhere.error().message, "cannot create"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace coppice::model
