#include <cmath>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "train/base_trainer.h"
#include "train/evaluate.h"
#include "train/gradients.h"

namespace coppice::train {
namespace {

std::filesystem::path run_dir(const std::string& name) {
  const auto dir = std::filesystem::temp_directory_path() / ("coppice_trainer_test_" + name);
  std::filesystem::remove_all(dir);
  return dir;
}

BaseOptions small_options(const std::string& name) {
  BaseOptions options;
  options.out = run_dir(name);
  options.steps = 4;
  options.decay_steps = 2;
  options.warmup = 2;
  options.step_tokens = 100;
  options.eval_every = 1000;
  options.threads = 1;
  return options;
}

Bpe tokenizer() {
  return *Bpe::load(std::filesystem::path(COPPICE_SOURCE_DIR) / "models/storefront");
}

TEST(Lesson, AnswersAreWhatIsMarked) {
  const Bpe bpe = tokenizer();
  const auto shop = storefront::make_shop(5, 8, storefront::Split::kTrain);
  const auto lesson = make_lesson(bpe, shop, 2, 3);
  ASSERT_TRUE(lesson) << lesson.error().message;
  ASSERT_EQ(lesson->answers.size(), 3u);
  const auto questions = shop.questions();
  for (size_t i = 0; i < 3; ++i) {
    const auto& answer = lesson->answers[i];
    const std::vector<int32_t> ids(lesson->ids.begin() + answer.begin,
                                   lesson->ids.begin() + answer.end);
    EXPECT_EQ(bpe.decode(ids), questions[i + 2].answer + "<|eos|>");
  }
  const auto closed = make_lesson(bpe, shop, 0, 1, false);
  EXPECT_EQ(bpe.decode(closed->ids), "\n" + questions[0].text + questions[0].answer + "<|eos|>");
}

TEST(Lesson, LossStandsOnAnswersAndOnADrawnRest) {
  const Bpe bpe = tokenizer();
  std::vector<Lesson> lessons;
  int64_t answer_tokens = 0;
  for (int facts : {3, 6}) {
    const auto shop =
        storefront::make_shop(static_cast<uint64_t>(facts), facts, storefront::Split::kTrain);
    lessons.push_back(*make_lesson(bpe, shop, 0, 100));
    for (const auto& answer : lessons.back().answers) answer_tokens += answer.end - answer.begin;
  }
  const Batch batch = make_batch(lessons, 0.1, 4, 1);
  EXPECT_EQ(batch.weights.eq(1.0f).sum().item<int64_t>(), answer_tokens);
  const auto rest = batch.weights.ne(1.0f);
  EXPECT_GT(rest.sum().item<int64_t>(), 0);
  EXPECT_TRUE(torch::allclose(batch.weights.masked_select(rest), torch::tensor(0.4f)));
  // Each target is the token after its row, and padding is never one.
  const auto flat = batch.inputs.flatten();
  const int64_t width = batch.inputs.size(1);
  for (int64_t r = 0; r < batch.rows.size(0); ++r) {
    const int64_t row = batch.rows[r].item<int64_t>();
    const auto& ids = lessons[static_cast<size_t>(row / width)].ids;
    EXPECT_EQ(batch.targets[r].item<int64_t>(), ids[static_cast<size_t>(row % width) + 1]);
  }
  EXPECT_EQ(make_batch(lessons, 0.0, 4, 1).rows.size(0), answer_tokens);
}

// Several batches weigh as one of all their rows, and threads change no bit.
TEST(Gradients, AreThoseOfOneBatchWhateverTheThreads) {
  TwinConfig config;
  config.hidden_size = 64;
  config.head_dim = 16;
  config.num_hidden_layers = 2;
  config.intermediate_size = 128;
  const Twin twin(config, 2);
  std::vector<Lesson> lessons;
  std::vector<Batch> parts;
  for (int facts : {3, 5, 8}) {
    const auto shop =
        storefront::make_shop(static_cast<uint64_t>(facts), facts, storefront::Split::kTrain);
    lessons.push_back(*make_lesson(tokenizer(), shop, 0, 100));
    parts.push_back(make_batch({lessons.back()}, 0.0, 1, 0));
  }
  const auto gradients = [&](const std::vector<Batch>& batches, int threads, double& loss) {
    loss = add_gradients(twin, batches, threads);
    std::vector<torch::Tensor> out;
    for (const auto& [name, p] : twin.parameters()) {
      out.push_back(p.grad().clone());
      torch::Tensor(p).mutable_grad() = torch::Tensor();
    }
    return out;
  };
  double loss = 0, split_loss = 0, thread_loss = 0;
  const auto whole = gradients({make_batch(lessons, 0.0, 1, 0)}, 1, loss);
  const auto split = gradients(parts, 1, split_loss), threads = gradients(parts, 3, thread_loss);
  EXPECT_NEAR(split_loss, loss, 1e-5);
  EXPECT_EQ(split_loss, thread_loss);
  for (size_t i = 0; i < whole.size(); ++i) {
    EXPECT_TRUE(torch::allclose(whole[i], split[i], 1e-3, 1e-6)) << twin.parameters()[i].first;
    EXPECT_TRUE(torch::equal(split[i], threads[i])) << twin.parameters()[i].first;
  }
}

TEST(AdamW, FollowsTheFormula) {
  const torch::Tensor p = torch::tensor({{1.0f, -2.0f}}).requires_grad_(true);
  AdamWOptions options;
  AdamW adam({{"p", p}}, options);
  double m = 0, v = 0, x = 1.0;
  for (int t = 1; t <= 3; ++t) {
    (p * torch::tensor({{0.3f, 0.1f}})).sum().backward();
    adam.step(0.01);
    m = 0.9 * m + 0.1 * 0.3;
    v = 0.95 * v + 0.05 * 0.09;
    x *= 1 - 0.01 * options.weight_decay;
    x -= 0.01 * (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.95, t))) + 1e-8);
  }
  EXPECT_NEAR(p[0][0].item<float>(), x, 1e-5);
}

TEST(AdamW, ClipsTheWholeGradient) {
  const torch::Tensor a = torch::zeros({3}).requires_grad_(true);
  const torch::Tensor b = torch::zeros({1}).requires_grad_(true);
  AdamW adam({{"a", a}, {"b", b}}, AdamWOptions{});
  (a.sum() * 30 + b.sum() * 40).backward();
  EXPECT_NEAR(adam.step(1e-3), std::sqrt(3 * 900.0 + 1600.0), 1e-2);
  const auto first = adam.state()[2].second;  // adam.m.b
  EXPECT_NEAR(first.item<float>(), 0.1 * 40 / std::sqrt(4300.0), 1e-5);
}

TEST(Training, OverfitsOneBatch) {
  TwinConfig config;
  config.hidden_size = 64;
  config.head_dim = 16;
  config.num_hidden_layers = 2;
  config.intermediate_size = 128;
  const Twin twin(config, 2);
  AdamW adam(twin.parameters(), AdamWOptions{});
  const auto lesson =
      *make_lesson(tokenizer(), storefront::make_shop(1, 4, storefront::Split::kTrain), 0, 4);
  const Batch batch = make_batch({lesson}, 0.1, 1, 0);
  double first = 0, last = 0;
  for (int i = 0; i < 60; ++i) {
    const auto hidden = twin.hidden(batch.inputs).flatten(0, 1).index_select(0, batch.rows);
    const auto loss = weighted_loss(twin.logits(hidden), batch);
    loss.backward();
    adam.step(3e-3);
    last = loss.item<double>();
    if (i == 0) first = last;
  }
  EXPECT_GT(first, 4.0);
  EXPECT_LT(last, 0.2 * first);
}

TEST(Training, ResumedEqualsUninterrupted) {
  auto whole = BaseTrainer::open(small_options("whole"));
  ASSERT_TRUE(whole) << whole.error().message;
  ASSERT_TRUE(whole->run());

  auto options = small_options("parts");
  {
    auto first = BaseTrainer::open(options);
    ASSERT_TRUE(first) << first.error().message;
    ASSERT_TRUE(first->step());
    ASSERT_TRUE(first->step());
    ASSERT_TRUE(first->save());
  }
  options.resume = true;
  auto second = BaseTrainer::open(options);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->steps_done(), 2);
  ASSERT_TRUE(second->run());
  for (size_t i = 0; i < whole->twin().parameters().size(); ++i) {
    EXPECT_TRUE(
        torch::equal(whole->twin().parameters()[i].second, second->twin().parameters()[i].second))
        << whole->twin().parameters()[i].first;
  }
}

TEST(Training, RunLeavesAModelAndALog) {
  auto options = small_options("log");
  options.steps = 20;
  options.log = options.out.string() + ".jsonl";
  std::filesystem::remove(options.log);
  auto trainer = BaseTrainer::open(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  ASSERT_TRUE(trainer->run());
  EXPECT_TRUE(Twin::load(options.out));
  EXPECT_TRUE(Bpe::load(options.out));
  std::ifstream log(options.log);
  std::string line;
  ASSERT_TRUE(std::getline(log, line));
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["step"], 20);
  EXPECT_GT(json["loss"].get<double>(), 0);
  EXPECT_GT(json["tokens_per_second"].get<double>(), 0);
}

TEST(Training, SaysWhenTheLossIsLost) {
  auto options = small_options("nan");
  options.learning_rate = 1e30;
  auto trainer = BaseTrainer::open(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  const auto result = trainer->run();
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("not finite"), std::string::npos);
}

TEST(Training, RefusesToOverwriteOrToResumeNothing) {
  auto options = small_options("refuse");
  options.resume = true;
  EXPECT_EQ(BaseTrainer::open(options).error().code, ErrorCode::kInvalidArgument);
  options.resume = false;
  {
    auto trainer = BaseTrainer::open(options);
    ASSERT_TRUE(trainer) << trainer.error().message;
    ASSERT_TRUE(trainer->save());
  }
  EXPECT_EQ(BaseTrainer::open(options).error().code, ErrorCode::kInvalidArgument);
  options.resume = true;
  options.seed = 77;
  EXPECT_EQ(BaseTrainer::open(options).error().code, ErrorCode::kInvalidArgument);
}

TEST(Evaluate, CountsAndIsRepeatable) {
  const Twin twin(TwinConfig{}, 1);
  Exam exam;
  exam.facts = 5;
  exam.questions = 30;
  const auto a = examine(twin, tokenizer(), exam), b = examine(twin, tokenizer(), exam);
  ASSERT_TRUE(a) << a.error().message;
  EXPECT_EQ(a->asked, 30);
  EXPECT_EQ(a->exact, b->exact);
  int by_kind = 0;
  for (int n : a->asked_of) by_kind += n;
  EXPECT_EQ(by_kind, 30);
}

// The bundled model must do what models/README.md says of it, here on a quarter of the questions.
TEST(Evaluate, BundledModelAnswers) {
  const auto dir = std::filesystem::path(COPPICE_SOURCE_DIR) / "models/storefront";
  const auto twin = Twin::load(dir);
  ASSERT_TRUE(twin) << twin.error().message;
  Exam exam;
  exam.facts = 16;
  exam.questions = 125;
  exam.seed = 99;
  const auto open = examine(*twin, tokenizer(), exam);
  ASSERT_TRUE(open) << open.error().message;
  EXPECT_GE(open->rate(), 0.9);
  exam.closed_book = true;
  const auto closed = examine(*twin, tokenizer(), exam);
  ASSERT_TRUE(closed) << closed.error().message;
  EXPECT_LE(closed->rate(), 0.02);
}

}  // namespace
}  // namespace coppice::train
