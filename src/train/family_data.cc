#include "train/family_data.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace coppice::train {

bool is_taught(const std::vector<families::Family>& taught, families::Family family) {
  return taught.empty() || std::find(taught.begin(), taught.end(), family) != taught.end();
}

namespace {

using families::Family;
using families::Haystack;
using storefront::Random;

// Lessons of a hundred. The first stage teaches to continue any run of words that was seen before,
// which everything later rests on; then the shop keeps an eighth, so that what the base could it
// still can.
struct Share {
  Family family;
  uint32_t first, later;
};
constexpr std::array<Share, families::kFamilies> kShares = {{{Family::kNeedle, 1, 2},
                                                             {Family::kMultiKey, 3, 5},
                                                             {Family::kMultiValue, 8, 9},
                                                             {Family::kMultiQuery, 8, 10},
                                                             {Family::kUuid, 24, 12},
                                                             {Family::kVariables, 8, 11},
                                                             {Family::kLookup, 3, 6},
                                                             {Family::kCounting, 5, 8},
                                                             {Family::kSystemPrompt, 6, 13},
                                                             {Family::kConditioned, 5, 9},
                                                             {Family::kMarkov, 5, 3},
                                                             {Family::kCopy, 24, 12}}};

Family draw_family(Random& random, bool first_stage, const std::vector<Family>& taught) {
  uint32_t all = 0;
  for (const auto& [family, first, later] : kShares) {
    if (is_taught(taught, family)) all += first_stage ? first : later;
  }
  uint32_t roll = random.below(all);
  for (const auto& [family, first, later] : kShares) {
    if (!is_taught(taught, family)) continue;
    const uint32_t share = first_stage ? first : later;
    if (roll < share) return family;
    roll -= share;
  }
  return Family::kSystemPrompt;  // not reached: the shares sum to `all`
}

Haystack draw_haystack(Random& random, Family family) {
  const uint32_t roll = random.below(20);
  if (family == Family::kUuid || family == Family::kLookup) {
    if (roll < 10) return Haystack::kH3;
  }
  if (roll < 13) return Haystack::kH1;
  return roll < 18 ? Haystack::kH2 : Haystack::kH0;
}

// One shop in three grows to this in every stage, 90 facts and their questions: stages of short
// lessons alone made a base that answered from 64 facts forget it within 400 steps.
constexpr int kShopTokens = 1152;

void grade(const Twin& twin, const std::vector<Lesson>& lessons, FamilyScore& score) {
  torch::NoGradGuard no_grad;
  const Batch batch = make_batch(lessons, 0.0, 1, 0);
  const auto hidden = twin.hidden(batch.inputs).flatten(0, 1).index_select(0, batch.rows);
  const auto logits = twin.logits(hidden);
  const int64_t rows = batch.rows.size(0);
  score.tokens += rows;
  score.nats += weighted_loss(logits, batch).item<double>() * static_cast<double>(rows);
  const auto right = logits.argmax(-1).eq(batch.targets).to(torch::kInt64).contiguous();
  const int64_t* next = right.data_ptr<int64_t>();
  for (const Lesson& lesson : lessons) {
    for (const Lesson::Answer& answer : lesson.answers) {
      const int64_t* end = next + (answer.end - answer.begin);
      ++score.asked;
      score.exact += std::all_of(next, end, [](int64_t r) { return r == 1; }) ? 1 : 0;
      next = end;
    }
  }
}

}  // namespace

int fact_tokens(Family family, const families::TaskOptions& options) {
  switch (family) {
    case Family::kMultiValue:
    case Family::kConditioned:
      return 24;
    case Family::kUuid:
      return 19;
    case Family::kCounting:
      return 56;
    case Family::kVariables:
      return 8 * (options.hops + 1);
    case Family::kCopy:
      return std::max(8, options.tokens / 8) + 2;
    default:
      return 8;
  }
}

const std::vector<FamilyStage>& family_stages() {
  static const std::vector<FamilyStage> stages = {{128, 200, 600},  {192, 150, 600},
                                                  {448, 100, 400},  {896, 100, 400},
                                                  {1600, 100, 400}, {2304, 100, int64_t{1} << 40}};
  return stages;
}

int draw_length(Random& random, int stage_tokens) {
  return static_cast<int>(stage_tokens * std::exp2(-2.0 * random.uniform()));
}

Expected<Lesson> family_lesson(const Bpe& bpe, uint64_t seed, int stage, int tokens,
                               const std::vector<Family>& taught) {
  Random random(seed);
  const Family family = draw_family(random, stage == 0, taught);
  if (family == Family::kSystemPrompt && tokens < kShopTokens && random.below(3) == 0) {
    tokens = draw_length(random, kShopTokens);
  }
  families::TaskOptions options;
  options.haystack = draw_haystack(random, family);
  options.hops = 1 + static_cast<int>(random.below(4));
  options.asks = 1 << 10;  // as many as the lesson has room for
  // Questions need the room that the context leaves.
  double part = 0.5 + 0.4 * random.uniform();
  if (family == Family::kNeedle || family == Family::kMarkov) part = 0.95;
  if (family == Family::kCounting) part = 0.9;
  options.tokens = std::max(families::kMinTokens, static_cast<int>(tokens * part));
  // Most of the context is facts: a question to each teaches more than filler does.
  const double facts = (0.2 + 0.8 * random.uniform()) * options.tokens;
  options.facts = std::max(1, static_cast<int>(facts) / fact_tokens(family, options));
  if (family == Family::kNeedle) options.facts = 1;
  if (family == Family::kSystemPrompt) options.facts = 0;
  return make_lesson(bpe, families::make_task(family, random.next(), options), tokens);
}

Expected<FamilyScore> examine_family(const Twin& twin, const Bpe& bpe, Family family,
                                     const FamilyExam& exam) {
  constexpr int kPassTokens = 4096;
  FamilyScore score;
  score.family = family;
  families::TaskOptions options;
  options.tokens = exam.tokens;
  options.haystack = exam.haystack;
  options.hops = exam.hops;
  options.asks = exam.questions;
  options.split = families::Split::kHeldOut;
  std::vector<Lesson> lessons;
  int64_t longest = 0;
  const auto push = [&](Lesson lesson) {
    longest = std::max(longest, static_cast<int64_t>(lesson.ids.size()));
    lessons.push_back(std::move(lesson));
    if (static_cast<int64_t>(lessons.size() + 1) * longest < kPassTokens) return;
    grade(twin, lessons, score);
    lessons.clear();
  };
  Random seeds(exam.seed);
  for (int spent = 0; spent < exam.budget; spent += exam.tokens) {
    const auto sample = families::make_task(family, seeds.next(), options);
    if (!exam.apart || sample.asks.empty()) {
      TRY(Lesson lesson, make_lesson(bpe, sample, 1 << 20));
      push(std::move(lesson));
      continue;
    }
    for (const families::Ask& ask : sample.asks) {
      TRY(Lesson lesson, make_lesson(bpe, {sample.context, {ask}}, 1 << 20));
      push(std::move(lesson));
    }
  }
  if (!lessons.empty()) grade(twin, lessons, score);
  return score;
}

}  // namespace coppice::train
