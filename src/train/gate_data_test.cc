// Samples: what is predicted, what is the prompt, and that a question never reaches into it.
#include "train/gate_data.h"

#include <cmath>
#include <fstream>
#include <set>

#include <gtest/gtest.h>

#include "base/file.h"
#include "train/gate_batch.h"

namespace coppice::train {
namespace {

const std::filesystem::path kTokenizerModel =
    std::filesystem::path(COPPICE_SOURCE_DIR) / "models/storefront";

std::vector<families::Family> every_family() {
  std::vector<families::Family> out;
  for (const auto& one : families::all_families()) out.push_back(one.family);
  return out;
}

Expected<GateData> open_data(const GateDataOptions& options) {
  const std::string file = (kTokenizerModel / "tokenizer.json").string();
  return GateData::open(options, *read_file(file), file, 1024, 1);
}

std::unique_ptr<text::Tokenizer> words() {
  const std::string file = (kTokenizerModel / "tokenizer.json").string();
  return *text::Tokenizer::load(*read_file(file), file);
}

std::string spelled(const GateSample& sample, int begin, int end) {
  return words()->decode({sample.ids.begin() + begin, sample.ids.begin() + end}, true);
}

TEST(GateData, AnswersStandBehindThePromptAndEndWithEos) {
  GateDataOptions options;
  options.families = {families::Family::kSystemPrompt};
  options.copy_share = 0;
  const auto data = open_data(options);
  ASSERT_TRUE(data) << data.error().message;
  const GateSample sample = data->draw(3, 300);
  EXPECT_LE(sample.ids.size(), 330u);
  ASSERT_GE(sample.answers.size(), 4u);
  const std::string context = spelled(sample, 0, sample.prompt);
  EXPECT_EQ(context.back(), '\n');
  int before = sample.prompt;
  for (const auto& [begin, end] : sample.answers) {
    EXPECT_GT(begin, before);
    EXPECT_EQ(sample.ids[static_cast<size_t>(end) - 1], 1);
    // The question and its answer are a sentence of the context.
    const std::string question = spelled(sample, before, begin);
    EXPECT_EQ(question.back(), '?');
    const std::string fact =
        question.substr(0, question.size() - 1) + spelled(sample, begin, end - 1) + ".";
    EXPECT_NE(context.find(fact), std::string::npos) << fact;
    before = end;
  }
}

TEST(GateData, ACopyPredictsItsContext) {
  GateDataOptions options;
  options.families = every_family();
  options.copy_share = 1;
  const auto data = open_data(options);
  ASSERT_TRUE(data) << data.error().message;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const GateSample sample = data->draw(seed, 260);
    EXPECT_LE(sample.ids.size(), 260u);
    ASSERT_EQ(sample.answers.size(), 1u);
    const auto [begin, end] = sample.answers[0];
    EXPECT_EQ(end - begin, sample.prompt);
    EXPECT_EQ(spelled(sample, begin, end), spelled(sample, 0, sample.prompt));
    EXPECT_EQ(spelled(sample, sample.prompt, begin), "\n");
  }
}

TEST(GateData, DrawsAreFunctionsOfTheirSeedAndExamsAreOthers) {
  GateDataOptions options;
  options.families = every_family();
  const auto data = open_data(options);
  ASSERT_TRUE(data) << data.error().message;
  std::set<std::vector<int32_t>> drawn;
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const GateSample sample = data->draw(seed, 400);
    EXPECT_EQ(sample.ids, data->draw(seed, 400).ids);
    EXPECT_GE(sample.prompt, 1);
    EXPECT_FALSE(sample.answers.empty());
    EXPECT_LE(sample.answers.back().second, static_cast<int>(sample.ids.size()));
    drawn.insert(sample.ids);
  }
  EXPECT_EQ(drawn.size(), 60u);
  for (uint64_t seed = 0; seed < 30; ++seed) {
    const auto tokens = static_cast<double>(data->draw(seed, 2048).ids.size());
    EXPECT_GT(tokens, 900) << seed;
    EXPECT_LT(tokens, 2300) << seed;
  }
  ASSERT_EQ(data->cases().size(), 13u);  // chains of four links stand beside those of two
  int held_out = 0;
  for (size_t i = 0; i < data->cases().size(); ++i) {
    held_out += data->cases()[i].held_out ? 1 : 0;
    const GateSample one = data->exam(i, 0, 300, 4);
    EXPECT_EQ(one.ids, data->exam(i, 0, 300, 4).ids);
    EXPECT_NE(one.ids, data->exam(i, 1, 300, 4).ids);
    EXPECT_LE(one.answers.size(), 4u);
    EXPECT_NEAR(one.prompt, 300, 60) << data->cases()[i].name;
  }
  EXPECT_EQ(held_out, 2);
}

TEST(GateData, TextsArePredictedFromTheirMiddleOnAndTheirEndIsHeldOut) {
  const auto file = std::filesystem::temp_directory_path() / "coppice_gate_data_test.txt";
  {
    std::ofstream out(file);
    storefront::Random random(4);
    for (int i = 0; i < 900; ++i) out << "The " << (random.below(2) ? "oak" : "tin") << " lamp.";
    for (int i = 0; i < 100; ++i) out << " big hall?";
  }
  GateDataOptions options;
  options.texts = {file.string()};
  options.copy_share = 0;
  const auto data = open_data(options);
  ASSERT_TRUE(data) << data.error().message;
  ASSERT_EQ(data->cases().size(), 1u);
  EXPECT_EQ(data->cases()[0].name, "text:coppice_gate_data_test.txt");
  const GateSample sample = data->draw(1, 120);
  EXPECT_EQ(sample.ids.size(), 120u);
  EXPECT_EQ(sample.prompt, 60);
  EXPECT_EQ(sample.answers, (std::vector<std::pair<int, int>>{{60, 120}}));
  EXPECT_TRUE(sample.dense);
  EXPECT_EQ(spelled(sample, 0, 120).find("hall"), std::string::npos);
  const GateSample exam = data->exam(0, 0, 100, 1);
  EXPECT_NE(spelled(exam, 0, static_cast<int>(exam.ids.size())).find("hall"), std::string::npos);

  std::ofstream(file) << "The oak lamp.";
  const auto too_short = open_data(options);
  ASSERT_FALSE(too_short);
  EXPECT_NE(too_short.error().message.find("coppice_gate_data_test.txt"), std::string::npos);
  const auto too_large = GateData::open(
      options, *read_file((kTokenizerModel / "tokenizer.json").string()), "t", 99, 1);
  EXPECT_NE(too_large.error().message.find("t: has 1024 tokens, the model 99"), std::string::npos);
  options.texts = {};
  EXPECT_NE(open_data(options).error().message.find("--families"), std::string::npos);
}

TEST(GateBatch, RowsPredictTheNextTokenOfAnswers) {
  GateDataOptions options;
  options.families = every_family();
  const auto data = open_data(options);
  ASSERT_TRUE(data) << data.error().message;
  const std::vector<GateSample> samples = {data->draw(1, 200), data->draw_copy(2, 300),
                                           data->draw(5, 250)};
  const GateBatch all = make_gate_batch(samples, 1 << 20, 0);
  int64_t predicted = 0;
  for (const GateSample& sample : samples) {
    for (const auto& [begin, end] : sample.answers) predicted += end - begin;
  }
  EXPECT_EQ(all.rows.size(0), predicted);
  const GateBatch some = make_gate_batch(samples, 7, 0);
  EXPECT_LE(some.rows.size(0), 21);
  EXPECT_GE(some.rows.size(0), 14);
  const int64_t width = all.inputs.size(1);
  for (const GateBatch* batch : {&all, &some}) {
    for (int64_t r = 0; r < batch->rows.size(0); ++r) {
      const int64_t row = batch->rows[r].item<int64_t>();
      const GateSample& sample = samples[static_cast<size_t>(row / width)];
      const auto target = static_cast<int>(row % width) + 1;
      EXPECT_EQ(batch->targets[r].item<int64_t>(), sample.ids[static_cast<size_t>(target)]);
      bool inside = false;
      for (const auto& [begin, end] : sample.answers) inside |= begin <= target && target < end;
      EXPECT_TRUE(inside);
    }
  }
  EXPECT_EQ(all.lengths[1].item<int64_t>(), static_cast<int64_t>(samples[1].ids.size()) - 1);
  EXPECT_EQ(all.prompts[2].item<int64_t>(), samples[2].prompt);
}

TEST(GateBatch, WhatTheTeacherGetsWrongCountsNothing) {
  GateBatch batch;
  batch.targets = torch::tensor({int64_t{0}, int64_t{1}});
  const auto logits = torch::zeros({2, 2});
  const auto teacher = torch::tensor({1.0f, 0.0f, 1.0f, 0.0f}).view({2, 2});  // right, wrong
  EXPECT_NEAR(answer_loss(logits, {}, batch).item<double>(), std::log(2.0), 1e-6);
  EXPECT_NEAR(answer_loss(logits, teacher, batch).item<double>(), std::log(2.0) / 2, 1e-6);
}

}  // namespace
}  // namespace coppice::train
