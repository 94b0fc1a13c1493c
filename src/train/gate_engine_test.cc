// A gate that is trained and the gate that serves are one: the same decisions wherever the logit is
// no closer than 1e-3 to the threshold, and in f32 logits of the gated network that agree to 1e-4.
#include <cmath>

#include <gtest/gtest.h>

#include "train/engine_gated.h"
#include "train/gate_archive.h"
#include "train/gated_pass.h"
#include "train/twin.h"

namespace coppice::train {
namespace {

struct GatedCase {
  const char* model;
  GateKind kind;
  const char* backend;
};

class TwinAndServedGate : public testing::TestWithParam<GatedCase> {};

// With logits on both sides of its thresholds in every list.
Expected<GateNet> write_random_gate(const Twin& twin, const std::string& directory, GateKind kind,
                                    const std::string& file) {
  TRY(const auto reader, CheckpointReader::open(directory));
  GateHeader header;
  header.kind = kind;
  header.hidden_size = reader.config().hidden_size;
  header.num_hidden_layers = reader.config().num_hidden_layers;
  header.num_key_value_heads = reader.config().num_key_value_heads;
  if (kind == GateKind::kCausal) {
    header.heads = 2;
    header.head_dim = 16;
    header.reach = 12;
    header.rope_theta = twin.config().rope_theta;
  }
  header.window = 7;
  header.sinks = 3;
  header.tiers = {{{-0.5f, 0.5, 0}, {0.25f, 0.25, 0}, {1.0f, 0.125, 0}}};
  TRY(header.base, base_hash_of(reader));
  GateNet net(header, 11);
  torch::NoGradGuard no_grad;
  torch::manual_seed(12);
  for (auto [name, tensor] : net.parameters()) {
    const bool aggregate = name.ends_with(".wo");
    tensor.normal_(0.0, aggregate ? 0.5 : 1.0 / std::sqrt(double(header.hidden_size)));
  }
  TRY_STATUS(write_gate(file, header, [&](const std::string& name) { return net.values(name); }));
  return net;
}

TEST_P(TwinAndServedGate, DecideAndAnswerAlike) {
  const auto& [model, kind, backend] = GetParam();
  const std::string directory = std::string(COPPICE_SOURCE_DIR "/") + model;
  const std::string file =
      (std::filesystem::temp_directory_path() / "coppice_gate_engine_test.safetensors").string();
  const auto twin = Twin::load(directory);
  ASSERT_TRUE(twin) << twin.error().message;
  const auto net = write_random_gate(*twin, directory, kind, file);
  ASSERT_TRUE(net) << net.error().message;
  std::vector<int32_t> ids(300);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(3 + i * 389 % 311);

  torch::NoGradGuard no_grad;
  const std::vector<int64_t> wide(ids.begin(), ids.end());
  const auto inputs = torch::tensor(wide, torch::kInt64).unsqueeze(0);
  const auto lengths = torch::tensor({int64_t{300}});
  const auto ungated = twin->logits(twin->hidden(inputs))[0];
  for (const model::GateTier tier : model::kGateTiers) {
    const float threshold = net->header().tier(tier).threshold;
    GateMask mask;
    mask.visibility = {net->header().window, net->header().sinks};
    GatedPass pass(*net, mask, lengths, torch::tensor({-threshold}));
    const auto logits = twin->logits(twin->hidden(inputs, &pass))[0];
    auto engine = engine_gated(directory, file, tier, backend, ids, 113);
    ASSERT_TRUE(engine) << engine.error().message;

    const auto sizes = pass.logits()[0].sizes();
    const auto stored = torch::from_blob(engine->stored.data(), sizes, torch::kUInt8);
    const auto above = pass.logits()[0] - threshold;
    const auto clear = above.abs().gt(1e-3).slice(2, mask.visibility.sinks);
    const auto differ = stored.ne(0).ne(above.ge(0)).slice(2, mask.visibility.sinks);
    EXPECT_EQ(differ.logical_and(clear).sum().item<int64_t>(), 0);
    EXPECT_TRUE(stored.slice(2, 0, mask.visibility.sinks).eq(255).all().item<bool>());
    const double share = above.ge(0).to(torch::kFloat32).mean().item<double>();
    EXPECT_GT(share, 0.05);
    EXPECT_LT(share, 0.95);
    ASSERT_EQ(differ.sum().item<int64_t>(), 0) << "too close to call: other ids will do";

    const auto got = torch::from_blob(engine->logits.data(), logits.sizes(), torch::kFloat32);
    EXPECT_LE((got - logits).abs().max().item<float>(), 1e-4f);
    EXPECT_GT((got - ungated).abs().max().item<float>(), 0.05f);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, TwinAndServedGate,
    testing::Values(GatedCase{"models/storefront", GateKind::kPoint, "ref"},
                    GatedCase{"models/storefront", GateKind::kCausal, "cpu"},
                    GatedCase{"tests/data/models/qwen3", GateKind::kCausal, "ref"},
                    GatedCase{"tests/data/models/llama3", GateKind::kPoint, "cpu"}));

}  // namespace
}  // namespace coppice::train
