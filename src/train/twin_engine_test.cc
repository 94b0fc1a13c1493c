// The twin that is trained and the engine that serves are one network: in f32 their logits agree to
// 1e-4, on the bundled weights and on every architecture the engine loads.
#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
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

// [T, V]
torch::Tensor twin_logits(const Twin& twin, const std::vector<int32_t>& ids) {
  torch::NoGradGuard no_grad;
  const std::vector<int64_t> wide(ids.begin(), ids.end());
  return twin.logits(twin.hidden(torch::tensor(wide, torch::kInt64).unsqueeze(0)))
      .squeeze(0)
      .contiguous();
}

float worst(const torch::Tensor& expected, std::vector<float>& logits) {
  EXPECT_EQ(static_cast<int64_t>(logits.size()), expected.numel());
  if (static_cast<int64_t>(logits.size()) != expected.numel()) return INFINITY;
  const auto got =
      torch::from_blob(logits.data(), {expected.size(0), expected.size(1)}, torch::kFloat32);
  return (got - expected).abs().max().item<float>();
}

class TwinAndEngine : public testing::TestWithParam<const char*> {};

TEST_P(TwinAndEngine, AgreeOnTheBundledModel) {
  const auto twin = Twin::load(kBundled);
  ASSERT_TRUE(twin) << twin.error().message;
  const torch::Tensor expected = twin_logits(*twin, some_tokens());
  auto logits = engine_logits(kBundled, GetParam(), some_tokens());
  ASSERT_TRUE(logits) << logits.error().message;
  EXPECT_GT((expected.max() - expected.min()).item<float>(), 5.0f);  // a network that has learned
  EXPECT_LE(worst(expected, *logits), 1e-4f);
}

INSTANTIATE_TEST_SUITE_P(Backends, TwinAndEngine, testing::Values("ref", "cpu"));

class GoldenTwin : public testing::TestWithParam<const char*> {};

TEST_P(GoldenTwin, AnswersAsTransformersAndTheEngineDo) {
  Golden golden = read_golden(GetParam());
  const std::string directory = COPPICE_TEST_DATA "/models/" + std::string(GetParam());
  const auto twin = Twin::load(directory);
  ASSERT_TRUE(twin) << twin.error().message;
  const torch::Tensor logits = twin_logits(*twin, golden.ids);
  EXPECT_GT((logits.max() - logits.min()).item<float>(), 1.0f);
  EXPECT_LE(worst(logits, golden.logits), 1e-4f);
  auto engine = engine_logits(directory, "ref", golden.ids);
  ASSERT_TRUE(engine) << engine.error().message;
  EXPECT_LE(worst(logits, *engine), 1e-4f);
}

// Untied heads and Llama; scaled frequencies; biases of q, k and v; norms of q and k in two shards.
INSTANTIATE_TEST_SUITE_P(Models, GoldenTwin, testing::Values("llama", "llama3", "qwen2", "qwen3"));

// A golden model's directory with some keys of its config changed.
std::filesystem::path variant(const std::string& golden, const std::string& name,
                              const nlohmann::json& changes) {
  const auto from = std::filesystem::path(COPPICE_TEST_DATA) / "models" / golden;
  const auto to = std::filesystem::temp_directory_path() / ("coppice_twin_engine_test_" + name);
  std::filesystem::remove_all(to);
  std::filesystem::copy(from, to, std::filesystem::copy_options::recursive);
  auto config = nlohmann::json::parse(*read_file((to / "config.json").string()));
  config.update(changes);
  std::ofstream(to / "config.json") << config;
  return to;
}

TEST(TwinVariants, OtherNamesTypesAndScalingsAgreeWithTheEngine) {
  const nlohmann::json linear = {
      {"rope_parameters", {{"rope_theta", 1e4}, {"rope_type", "linear"}, {"factor", 3.0}}}};
  const nlohmann::json mistral = {{"architectures", {"MistralForCausalLM"}},
                                  {"model_type", "mistral"},
                                  {"sliding_window", nullptr}};
  const std::vector<int32_t> ids = read_golden("llama").ids;
  torch::Tensor plain;
  for (const auto& [golden, name, changes] :
       {std::tuple{"llama", "plain", nlohmann::json::object()},
        std::tuple{"llama", "linear", linear}, std::tuple{"llama", "mistral", mistral},
        std::tuple{"qwen3-bf16", "bf16", nlohmann::json::object()}}) {
    const auto directory = variant(golden, name, changes);
    const auto twin = Twin::load(directory);
    ASSERT_TRUE(twin) << name << ": " << twin.error().message;
    const torch::Tensor logits = twin_logits(*twin, ids);
    auto engine = engine_logits(directory.string(), "ref", ids);
    ASSERT_TRUE(engine) << name << ": " << engine.error().message;
    EXPECT_LE(worst(logits, *engine), 1e-4f) << name;
    if (!plain.defined()) plain = logits;
    if (name == std::string("linear")) {
      EXPECT_GT((logits - plain).abs().max().item<float>(), 1e-2f);
    }
  }
  const auto file = std::filesystem::path(COPPICE_TEST_DATA) / "gguf/qwen2-f16.gguf";
  const auto halves = Twin::load(file);
  ASSERT_TRUE(halves) << halves.error().message;
  auto engine = engine_logits(file.string(), "ref", ids);
  ASSERT_TRUE(engine) << engine.error().message;
  EXPECT_LE(worst(twin_logits(*halves, ids), *engine), 1e-4f);
}

TEST(TwinVariants, WhatTheEngineRefusesIsRefusedByField) {
  const auto refused = [](const nlohmann::json& changes) {
    const auto twin = Twin::load(variant("llama", "refused", changes));
    return twin ? std::string() : twin.error().message;
  };
  EXPECT_NE(refused({{"architectures", {"MambaForCausalLM"}}}).find("architectures"),
            std::string::npos);
  EXPECT_NE(refused({{"mlp_bias", true}}).find("mlp_bias"), std::string::npos);
  EXPECT_NE(refused({{"head_dim", 24}}).find("q_proj"), std::string::npos);
  EXPECT_NE(refused({{"rope_parameters", {{"rope_type", "yarn"}}}}).find("rope_type"),
            std::string::npos);
  // Tensors that its architecture has no use for.
  EXPECT_NE(Twin::load(variant("qwen2", "extra",
                               {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}}))
                .error()
                .message.find("bias"),
            std::string::npos);
}

TEST(TwinAdapters, AddNothingAtFirstAndMergeToWhatTheyAdd) {
  Twin twin = *Twin::load(COPPICE_TEST_DATA "/models/qwen2");
  const Twin before = twin;
  const std::vector<int32_t> ids = read_golden("qwen2").ids;
  twin.add_adapters(3, 7);
  EXPECT_TRUE(torch::equal(twin_logits(twin, ids), twin_logits(before, ids)));
  {
    torch::NoGradGuard no_grad;
    for (auto [name, tensor] : twin.adapters()) tensor.normal_(0.0, 0.1);
  }
  const auto adapted = twin_logits(twin, ids);
  EXPECT_GT((adapted - twin_logits(before, ids)).abs().max().item<float>(), 1e-2f);
  torch::NoGradGuard no_grad;
  const NamedTensors merged = twin.merged();
  for (size_t i = 0; i < merged.size(); ++i) {
    torch::Tensor into = before.parameters()[i].second;
    into.copy_(merged[i].second);
  }
  EXPECT_LE((twin_logits(before, ids) - adapted).abs().max().item<float>(), 1e-4f);
}

}  // namespace
}  // namespace coppice::train
