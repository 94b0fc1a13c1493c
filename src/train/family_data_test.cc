#include "train/family_data.h"

#include <gtest/gtest.h>

#include "train/base_trainer.h"

namespace coppice::train {
namespace {

using families::Family;

const std::filesystem::path kShopModel =
    std::filesystem::path(COPPICE_SOURCE_DIR) / "models/storefront";

BaseOptions family_options(const std::string& name) {
  BaseOptions options;
  options.out = std::filesystem::temp_directory_path() / ("coppice_family_test_" + name);
  std::filesystem::remove_all(options.out);
  options.init = kShopModel;
  options.data = BaseData::kFamilies;
  options.steps = 4;
  options.decay_steps = 2;
  options.warmup = 2;
  options.step_tokens = 200;
  options.eval_every = 1000;
  options.threads = 1;
  return options;
}

void expect_same_weights(const Twin& a, const Twin& b) {
  ASSERT_EQ(a.parameters().size(), b.parameters().size());
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    EXPECT_TRUE(torch::equal(a.parameters()[i].second, b.parameters()[i].second))
        << a.parameters()[i].first;
  }
}

TEST(FamilyLesson, ContextThenAsksWithTheirAnswersMarked) {
  const Bpe bpe = *Bpe::load(kShopModel);
  families::TaskOptions options;
  options.tokens = 200;
  const auto sample = families::make_task(Family::kMultiValue, 3, options);
  ASSERT_GE(sample.asks.size(), 2u);
  const auto lesson = make_lesson(bpe, sample, 1 << 20);
  ASSERT_TRUE(lesson) << lesson.error().message;
  ASSERT_EQ(lesson->answers.size(), sample.asks.size());
  std::string whole = sample.context;
  for (size_t i = 0; i < sample.asks.size(); ++i) {
    const Lesson::Answer& answer = lesson->answers[i];
    EXPECT_EQ(bpe.decode({lesson->ids.begin() + answer.begin, lesson->ids.begin() + answer.end}),
              sample.asks[i].answer + "<|eos|>");
    whole += sample.asks[i].question + sample.asks[i].answer + "<|eos|>";
  }
  EXPECT_EQ(bpe.decode(lesson->ids), whole);
  // Room for the context alone still leaves the first question.
  EXPECT_EQ(make_lesson(bpe, sample, 200)->answers.size(), 1u);
}

TEST(FamilyLesson, TextWithoutQuestionsCountsWhole) {
  const Bpe bpe = *Bpe::load(kShopModel);
  families::TaskOptions options;
  options.tokens = 100;
  const auto lesson = make_lesson(bpe, families::make_task(Family::kMarkov, 1, options), 100);
  ASSERT_TRUE(lesson && lesson->every_token);
  const Batch batch = make_batch({*lesson}, 0.1, 4, 7);
  EXPECT_EQ(batch.rows.size(0), static_cast<int64_t>(lesson->ids.size()) - 1);
  EXPECT_TRUE(batch.weights.eq(1.0f).all().item<bool>());
}

// Shops aside, which are long in every stage.
TEST(FamilyLesson, LengthsStayWithinTheStage) {
  const Bpe bpe = *Bpe::load(kShopModel);
  storefront::Random random(1);
  int long_shops = 0;
  for (size_t s = 0; s < family_stages().size(); ++s) {
    const int most = family_stages()[s].tokens;
    for (int i = 0; i < 20; ++i) {
      const int length = draw_length(random, most);
      EXPECT_GE(length, most / 4);
      EXPECT_LE(length, most);
      const auto lesson = family_lesson(bpe, random.next(), static_cast<int>(s), length);
      ASSERT_TRUE(lesson) << lesson.error().message;
      const std::string text = bpe.decode(lesson->ids);
      const bool shop = text.find("opens") != std::string::npos && lesson->ids.size() > 250;
      if (shop && static_cast<int>(lesson->ids.size()) > length && length < 1000) {
        ++long_shops;
        EXPECT_LE(lesson->ids.size(), 1160u);
        continue;
      }
      // One question always stands: the longest is a copy of an eighth of the context.
      EXPECT_LE(static_cast<int>(lesson->ids.size()),
                std::max(length, families::kMinTokens) + std::max(64, length / 8 + 8));
    }
  }
  EXPECT_GT(long_shops, 0);
}

// Nothing is asked of a chain, and something of everything else.
TEST(FamilyLesson, OnlyWhatIsTaught) {
  const Bpe bpe = *Bpe::load(kShopModel);
  storefront::Random random(1);
  for (int i = 0; i < 40; ++i) {
    for (const families::Family family : {families::Family::kMarkov, families::Family::kUuid}) {
      const auto lesson = family_lesson(bpe, random.next(), 2, 256, {family});
      ASSERT_TRUE(lesson) << lesson.error().message;
      const bool asks = bpe.decode(lesson->ids).find('?') != std::string::npos;
      EXPECT_EQ(asks, family == families::Family::kUuid) << i;
    }
  }
  EXPECT_TRUE(is_taught({}, families::Family::kCopy));
  EXPECT_FALSE(is_taught({families::Family::kLookup}, families::Family::kCopy));
}

TEST(FamilyTraining, StartsFromTheModelGiven) {
  auto options = family_options("init");
  const auto trainer = BaseTrainer::open(options);
  ASSERT_TRUE(trainer) << trainer.error().message;
  expect_same_weights(trainer->twin(), *Twin::load(kShopModel));
}

TEST(FamilyTraining, ResumedEqualsUninterrupted) {
  auto whole = BaseTrainer::open(family_options("whole"));
  ASSERT_TRUE(whole) << whole.error().message;
  ASSERT_TRUE(whole->run());
  auto options = family_options("parts");
  {
    auto first = BaseTrainer::open(options);
    ASSERT_TRUE(first) << first.error().message;
    ASSERT_TRUE(first->step() && first->step() && first->save());
  }
  options.resume = true;
  auto second = BaseTrainer::open(options);
  ASSERT_TRUE(second) << second.error().message;
  EXPECT_EQ(second->steps_done(), 2);
  ASSERT_TRUE(second->run());
  expect_same_weights(whole->twin(), second->twin());
}

TEST(FamilyExams, AreRepeatableAndAskApartOrTogether) {
  const Bpe bpe = *Bpe::load(kShopModel);
  const Twin twin = *Twin::load(kShopModel);
  FamilyExam exam;
  exam.tokens = 128;
  exam.budget = 512;
  const auto together = examine_family(twin, bpe, Family::kSystemPrompt, exam);
  ASSERT_TRUE(together) << together.error().message;
  EXPECT_EQ(together->asked, 60);  // 15 facts fit
  EXPECT_EQ(together->exact, examine_family(twin, bpe, Family::kSystemPrompt, exam)->exact);
  exam.apart = true;
  const auto apart = examine_family(twin, bpe, Family::kSystemPrompt, exam);
  EXPECT_EQ(apart->asked, 60);
  EXPECT_GE(apart->rate(), 0.9);  // what the bundled model was taught
  const auto text = examine_family(twin, bpe, Family::kMarkov, exam);
  EXPECT_EQ(text->asked, 0);
  EXPECT_EQ(text->tokens, 4 * 127);
  EXPECT_GT(text->nats_per_token(), 0.0);
}

}  // namespace
}  // namespace coppice::train
