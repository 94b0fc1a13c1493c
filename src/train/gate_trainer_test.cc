// The trainer's schedule and loop: targets by hand, resumed runs, what stops a run, what is
// written.
#include "train/gate_trainer.h"

#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "train/gate_calibration.h"
#include "train/kvzip.h"

namespace coppice::train {
namespace {

const std::filesystem::path kStorefront =
    std::filesystem::path(COPPICE_SOURCE_DIR) / "models/storefront";

GateOptions quick(const std::string& name) {
  const auto dir = std::filesystem::temp_directory_path() / ("coppice_gate_trainer_test_" + name);
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  GateOptions o;
  o.model = kStorefront;
  o.out = dir / "gate.safetensors";
  o.steps = 6;
  o.length = 128;
  o.step_tokens = 200;
  o.data.families = {families::Family::kSystemPrompt, families::Family::kNeedle};
  o.exam_contexts = 1;
  o.exam_asks = 2;
  o.threads = 1;
  o.report_every = 100;
  return o;
}

TEST(GateSchedule, TargetsComeDownAndNoiseGoes) {
  const GateOptions o;  // 0.5 to 0.125 over three quarters of the steps
  EXPECT_DOUBLE_EQ(keep_target(o, 0, 0), 1.0);
  EXPECT_DOUBLE_EQ(keep_target(o, 0, 0.75), 0.5);
  EXPECT_DOUBLE_EQ(keep_target(o, 0.5, 1.0), 0.25);
  EXPECT_DOUBLE_EQ(keep_target(o, 1, 0.375), 1 - 0.875 / 2);
  EXPECT_DOUBLE_EQ(noise_scale(o, 0.2), o.noise);
  EXPECT_DOUBLE_EQ(noise_scale(o, 0.7), o.noise / 2);
  EXPECT_DOUBLE_EQ(noise_scale(o, 0.9), 0.0);
  EXPECT_DOUBLE_EQ(noise_scale(o, 0.95), 0.0);
}

// Nothing is lost where nothing is dropped: the loss is the answers' and the hinge is the targets'.
TEST(GateObjective, AFreshGatePaysForWhatItKeepsAlone) {
  GateOptions o = quick("objective");
  o.noise = 0;
  o.gamma = 0;
  const auto trainer = GateTrainer::open(o);
  ASSERT_TRUE(trainer) << trainer.error().message;
  const GateBatch batch = make_gate_batch({trainer->data().draw(1, 128)}, 64, 0);
  GateObjective objective(o);
  const Twin& twin = trainer->student();
  const auto loss = objective.loss(twin, twin, trainer->net(), batch, 1.0, 9);
  const GateLossParts& parts = objective.parts();
  EXPECT_NEAR(parts.kd, 0, 1e-6);
  double above = 0;
  int bins = 0;
  for (size_t bin = 0; bin < parts.keep.size(); ++bin) {
    if (std::isnan(parts.keep[bin])) continue;
    EXPECT_DOUBLE_EQ(parts.keep[bin], 1.0);
    above = objective.excess()[bin];
    ++bins;
  }
  EXPECT_EQ(bins, 1);
  // A tenth of (1 - target) entered the running mean, and a target lies in [1/8, 1/2].
  EXPECT_GE(above, 0.05 - 1e-6);
  EXPECT_LE(above, 0.0875 + 1e-6);
  EXPECT_NEAR(parts.hinge, above, 1e-6);
  EXPECT_NEAR(loss.item<double>(), parts.answers + o.alpha * above, 1e-4);
  // Its gradient lowers every bias, and does so at full strength.
  loss.backward();
  for (int64_t l = 0; l < 4; ++l) {
    EXPECT_GT(trainer->net().parameter(l, "b").grad().abs().max().item<float>(), 1e-5f);
  }
}

TEST(GateTrainer, ResumedEqualsUninterrupted) {
  for (const GateMethod method : {GateMethod::kLearned, GateMethod::kKvzap}) {
    GateOptions options = quick("whole");
    options.method = method;
    options.kind = GateKind::kCausal;
    options.lora = method == GateMethod::kLearned ? 2 : 0;
    auto whole = GateTrainer::open(options);
    ASSERT_TRUE(whole) << whole.error().message;
    std::vector<double> losses;
    for (int i = 0; i < 6; ++i) losses.push_back(*whole->step());
    GateOptions parts = options;
    parts.out = quick("parts").out;
    {
      auto first = GateTrainer::open(parts);
      ASSERT_TRUE(first) << first.error().message;
      for (size_t i = 0; i < 3; ++i) EXPECT_EQ(*first->step(), losses[i]);
      ASSERT_TRUE(first->save());
    }
    parts.resume = true;
    auto rest = GateTrainer::open(parts);
    ASSERT_TRUE(rest) << rest.error().message;
    EXPECT_EQ(rest->steps_done(), 3);
    for (size_t i = 3; i < 6; ++i) EXPECT_EQ(*rest->step(), losses[i]);
    for (size_t i = 0; i < whole->net().parameters().size(); ++i) {
      const auto& [name, tensor] = whole->net().parameters()[i];
      EXPECT_TRUE(torch::equal(tensor, rest->net().parameters()[i].second)) << name;
    }
    EXPECT_NE(losses[0], losses[5]);
  }
}

TEST(GateTrainer, RefusesOtherRunsCheckpoints) {
  GateOptions options = quick("refuses");
  options.resume = true;
  EXPECT_NE(GateTrainer::open(options).error().message.find("nothing to resume"),
            std::string::npos);
  options.resume = false;
  {
    auto trainer = GateTrainer::open(options);
    ASSERT_TRUE(trainer) << trainer.error().message;
    ASSERT_TRUE(trainer->save());
  }
  EXPECT_NE(GateTrainer::open(options).error().message.find("--resume"), std::string::npos);
  options.resume = true;
  options.window = 8;
  EXPECT_NE(GateTrainer::open(options).error().message.find("--window: 16, not 8"),
            std::string::npos);
  options.window = 16;
  EXPECT_TRUE(GateTrainer::open(options));
}

TEST(GateTrainer, ALossThatIsNotANumberStopsTheRunByStep) {
  auto trainer = GateTrainer::open(quick("nan"));
  ASSERT_TRUE(trainer) << trainer.error().message;
  ASSERT_TRUE(trainer->step());
  {
    torch::NoGradGuard no_grad;
    torch::Tensor weight = trainer->net().parameter(2, "ws");
    weight[0][0] = NAN;
  }
  const auto step = trainer->step();
  ASSERT_FALSE(step);
  EXPECT_NE(step.error().message.find("step 2: the loss is not finite"), std::string::npos);
  EXPECT_NE(step.error().message.find("--lr"), std::string::npos);
}

TEST(GateTrainer, AnInterruptSavesWhatAResumedRunGoesOnWith) {
  GateOptions options = quick("interrupt");
  int asked = 0;
  options.interrupted = [&] { return ++asked == 2; };
  {
    auto trainer = GateTrainer::open(options);
    ASSERT_TRUE(trainer) << trainer.error().message;
    const auto run = trainer->run();
    ASSERT_FALSE(run);
    EXPECT_EQ(run.error().code, ErrorCode::kCancelled);
    EXPECT_NE(run.error().message.find("step 2"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(options.out));
  options.resume = true;
  options.interrupted = {};
  auto trainer = GateTrainer::open(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  EXPECT_EQ(trainer->steps_done(), 2);
}

TEST(GateTrainer, WritesAGateFileWithItsReport) {
  GateOptions options = quick("file");
  options.log = (options.out.parent_path() / "log.jsonl").string();
  options.kind = GateKind::kCausal;
  options.steps = 3;
  options.lora = 2;
  options.report_every = 2;
  auto trainer = GateTrainer::open(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  const auto run = trainer->run();
  ASSERT_TRUE(run) << run.error().message;
  const auto gate = read_gate(options.out.string());
  ASSERT_TRUE(gate) << gate.error().message;
  const GateHeader& header = gate->header;
  EXPECT_EQ(header.kind, GateKind::kCausal);
  EXPECT_EQ(header.window, 16);
  EXPECT_EQ(header.rope_theta, 1e5);
  EXPECT_EQ(header.calibration.size(), 2u * 3u);
  for (const auto& [name, tensor] : trainer->net().parameters()) {
    const std::vector<float>& read = gate->tensors.at(name);
    EXPECT_TRUE(torch::equal(torch::tensor(read).view(tensor.sizes()), tensor.detach())) << name;
  }
  // The base with the adapters merged is one that the engine loads, the file is for it and says so.
  const auto merged = CheckpointReader::open(options.out.string() + ".base");
  ASSERT_TRUE(merged) << merged.error().message;
  EXPECT_EQ(header.base, *base_hash_of(*merged));
  EXPECT_NE(header.base, *base_hash_of(*CheckpointReader::open(kStorefront)));
  EXPECT_NE(header.note.find("rank 2"), std::string::npos);
  // The log has one object a report.
  std::ifstream log(options.log);
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(log, line);) lines.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[1]["step"], 3);
  EXPECT_EQ(lines[1]["keep_target"].size(), 3u);
}

TEST(GateTrainer, StartsFromAFilesNormalTier) {
  GateOptions options = quick("init");
  auto first = GateTrainer::open(options);
  ASSERT_TRUE(first) << first.error().message;
  GateHeader header = first->net().header();
  header.base = "0123456789abcdef";
  header.tiers = {{{-1.0f, 0.5, 0}, {1.5f, 0.25, 0}, {3.0f, 0.125, 0}}};
  const std::string file = (options.out.parent_path() / "init.safetensors").string();
  ASSERT_TRUE(write_gate(file, header, [](const std::string& name) {
    return std::vector<float>(name.ends_with(".b") ? 2 : 512, 0.25f);
  }));
  options.init = file;
  options.kind = GateKind::kCausal;  // more than the file has: the rest stays as drawn
  const auto second = GateTrainer::open(options);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_TRUE(torch::equal(second->net().parameter(1, "ws"), torch::full({2, 256}, 0.25f)));
  EXPECT_TRUE(torch::equal(second->net().parameter(1, "b"), torch::full({2}, -1.25f)));
  EXPECT_TRUE(torch::equal(second->net().parameter(1, "wo"), torch::zeros({2, 32})));
  options.model = COPPICE_TEST_DATA "/models/llama";
  EXPECT_NE(GateTrainer::open(options).error().message.find("another shape"), std::string::npos);
}

TEST(GateTrainer, RefusesWhatCouldNotEndWell) {
  GateOptions options = quick("options");
  options.length = 9000;
  EXPECT_NE(GateTrainer::open(options).error().message.find("--length: 9000"), std::string::npos);
  options.length = 128;
  options.kind = GateKind::kCausal;
  options.head_dim = 15;
  EXPECT_NE(GateTrainer::open(options).error().message.find("--head-dim"), std::string::npos);
  options.head_dim = 16;
  options.lora = 2;
  options.method = GateMethod::kKvzap;
  EXPECT_NE(GateTrainer::open(options).error().message.find("--lora"), std::string::npos);
  options.method = GateMethod::kLearned;
  options.model = COPPICE_TEST_DATA "/gguf/llama-f32.gguf";
  EXPECT_NE(GateTrainer::open(options).error().message.find("llama-f32.gguf"), std::string::npos);
}

// What calibration is made of: an ungated base answers, a gate that drops all does not, and a
// tier's threshold holds the share of pages that it is for.
TEST(GateCalibration, ThresholdsHoldTheirShares) {
  GateOptions options = quick("calibration");
  options.length = options.exam_length = 256;
  options.exam_contexts = 2;
  options.exam_asks = 6;
  const auto trainer = GateTrainer::open(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  const Twin& twin = trainer->student();
  const GateNet& net = trainer->net();
  {
    torch::NoGradGuard no_grad;
    torch::manual_seed(2);
    for (auto [name, tensor] : net.parameters()) tensor.normal_(0.0, 0.1);
  }
  const GateSample sample = trainer->data().exam(0, 7, 256, 6);
  double keep = 0;
  EXPECT_EQ(grade_gate(twin, nullptr, 0, sample, options, nullptr).asked, 6);
  EXPECT_GE(grade_gate(twin, nullptr, 0, sample, options, nullptr).right, 5);
  EXPECT_GE(grade_gate(twin, &net, -900, sample, options, &keep).right, 5);
  EXPECT_DOUBLE_EQ(keep, 1.0);
  EXPECT_LE(grade_gate(twin, &net, 900, sample, options, &keep).right, 2);  // in the window
  // A page of sinks and one or two of the window, of sixteen.
  EXPECT_GE(keep, 2.0 / 16);
  EXPECT_LE(keep, 3.0 / 16);

  GateHeader header = net.header();
  ASSERT_TRUE(calibrate(twin, net, trainer->data(), options, header));
  EXPECT_NEAR(header.tier(model::GateTier::kMild).keep, 0.5, 0.06);
  EXPECT_NEAR(header.tier(model::GateTier::kNormal).keep, 0.25, 0.04);
  EXPECT_LT(header.tiers[0].threshold, header.tiers[1].threshold);
  EXPECT_LE(header.tiers[1].threshold, header.tiers[2].threshold);
  ASSERT_EQ(header.calibration.size(), 6u);
  EXPECT_EQ(header.calibration[0].family, "system-prompt");
  EXPECT_EQ(header.calibration[0].samples, 48);  // more contexts than asked for
  EXPECT_GE(header.calibration[0].full, 0.9);
  double lost = 0;
  for (const auto& line : header.calibration) {
    if (line.tier == model::GateTier::kHard) lost += 50 * (line.full - line.gated);
  }
  EXPECT_NEAR(header.tier(model::GateTier::kHard).loss, lost, 1e-9);
}

}  // namespace
}  // namespace coppice::train
