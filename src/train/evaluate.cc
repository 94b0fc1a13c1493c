#include "train/evaluate.h"

#include <algorithm>

namespace coppice::train {
namespace {

constexpr int64_t kTokensPerPass = 8192;

void grade(const Twin& twin, const std::vector<Lesson>& lessons, Score& score) {
  torch::NoGradGuard no_grad;
  const Batch batch = make_batch(lessons, 0.0, 1, 0);
  const auto hidden = twin.hidden(batch.inputs).flatten(0, 1).index_select(0, batch.rows);
  const auto right =
      twin.logits(hidden).argmax(-1).eq(batch.targets).to(torch::kInt64).contiguous();
  const int64_t* next = right.data_ptr<int64_t>();
  for (const Lesson& lesson : lessons) {
    for (const Lesson::Answer& answer : lesson.answers) {
      const int64_t* end = next + (answer.end - answer.begin);
      const int exact = std::all_of(next, end, [](int64_t r) { return r == 1; }) ? 1 : 0;
      next = end;
      const auto kind = static_cast<size_t>(answer.attribute);
      ++score.asked;
      ++score.asked_of[kind];
      score.exact += exact;
      score.exact_of[kind] += exact;
    }
  }
}

}  // namespace

Expected<Score> examine(const Twin& twin, const Bpe& bpe, const Exam& exam) {
  Score score;
  std::vector<Lesson> lessons;
  int64_t longest = 0;
  int planned = 0;
  for (uint64_t n = 0; planned < exam.questions && exam.facts > 0; ++n) {
    const auto shop = storefront::make_shop(storefront::Random(exam.seed + n).next(), exam.facts,
                                            storefront::Split::kHeldOut);
    const int of_shop = std::min({exam.per_shop, exam.facts, exam.questions - planned});
    for (int first = 0; first < of_shop; first += exam.per_sequence) {
      const int count = std::min(exam.per_sequence, of_shop - first);
      TRY(Lesson lesson, make_lesson(bpe, shop, first, count, !exam.closed_book));
      const auto length = static_cast<int64_t>(lesson.ids.size());
      longest = std::max(longest, length);
      lessons.push_back(std::move(lesson));
      planned += count;
      if (static_cast<int64_t>(lessons.size() + 1) * longest > kTokensPerPass) {
        grade(twin, lessons, score);
        lessons.clear();
      }
    }
  }
  if (!lessons.empty()) grade(twin, lessons, score);
  return score;
}

}  // namespace coppice::train
