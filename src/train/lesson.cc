#include "train/lesson.h"

#include <algorithm>

namespace coppice::train {

Expected<Lesson> make_lesson(const Bpe& bpe, const storefront::Shop& shop, int first, int count,
                             bool with_facts) {
  Lesson lesson;
  const auto append = [&](const std::string& text) -> Status {
    TRY(const auto ids, bpe.encode(text));
    lesson.ids.insert(lesson.ids.end(), ids.begin(), ids.end());
    return {};
  };
  TRY_STATUS(append(with_facts ? shop.prompt() : "\n"));
  const auto questions = shop.questions();
  const int end = std::min(first + count, static_cast<int>(questions.size()));
  for (int i = first; i < end; ++i) {
    const auto& question = questions[static_cast<size_t>(i)];
    TRY_STATUS(append(question.text));
    Lesson::Answer answer{static_cast<int>(lesson.ids.size()), 0, question.attribute};
    TRY_STATUS(append(question.answer));
    lesson.ids.push_back(Bpe::kEos);
    answer.end = static_cast<int>(lesson.ids.size());
    lesson.answers.push_back(answer);
  }
  return lesson;
}

Expected<Lesson> make_lesson(const Bpe& bpe, const families::TaskSample& sample, int most_tokens) {
  Lesson lesson;
  TRY(lesson.ids, bpe.encode(sample.context));
  lesson.every_token = sample.asks.empty();
  for (const families::Ask& ask : sample.asks) {
    TRY(const auto question, bpe.encode(ask.question));
    TRY(const auto answer, bpe.encode(ask.answer));
    const size_t length = lesson.ids.size() + question.size() + answer.size() + 1;
    if (!lesson.answers.empty() && length > static_cast<size_t>(most_tokens)) break;
    lesson.ids.insert(lesson.ids.end(), question.begin(), question.end());
    Lesson::Answer& span = lesson.answers.emplace_back();
    span.begin = static_cast<int>(lesson.ids.size());
    lesson.ids.insert(lesson.ids.end(), answer.begin(), answer.end());
    lesson.ids.push_back(Bpe::kEos);
    span.end = static_cast<int>(lesson.ids.size());
  }
  return lesson;
}

Batch make_batch(const std::vector<Lesson>& lessons, double rest_weight, int rest_one_in,
                 uint64_t seed) {
  size_t longest = 2;
  for (const Lesson& lesson : lessons) longest = std::max(longest, lesson.ids.size());
  const int64_t steps = static_cast<int64_t>(longest) - 1;
  std::vector<int64_t> inputs(lessons.size() * static_cast<size_t>(steps), Bpe::kPad);
  std::vector<int64_t> rows, targets;
  std::vector<float> weights;
  storefront::Random random(seed);
  for (size_t b = 0; b < lessons.size(); ++b) {
    const Lesson& lesson = lessons[b];
    const size_t base = b * static_cast<size_t>(steps);
    size_t answer = 0;
    for (size_t i = 0; i + 1 < lesson.ids.size(); ++i) {
      inputs[base + i] = lesson.ids[i];
      const int target = static_cast<int>(i) + 1;
      while (answer < lesson.answers.size() && lesson.answers[answer].end <= target) ++answer;
      const bool asked = lesson.every_token ||
                         (answer < lesson.answers.size() && lesson.answers[answer].begin <= target);
      const bool drawn =
          !asked && rest_weight > 0 && random.below(static_cast<uint32_t>(rest_one_in)) == 0;
      if (!asked && !drawn) continue;
      rows.push_back(static_cast<int64_t>(base + i));
      targets.push_back(lesson.ids[i + 1]);
      weights.push_back(asked ? 1.0f : static_cast<float>(rest_weight * rest_one_in));
    }
  }
  Batch batch;
  const auto count = static_cast<int64_t>(lessons.size());
  batch.inputs = torch::tensor(inputs, torch::kInt64).view({count, steps});
  batch.rows = torch::tensor(rows, torch::kInt64);
  batch.targets = torch::tensor(targets, torch::kInt64);
  batch.weights = torch::tensor(weights, torch::kFloat32);
  batch.tokens = count * steps;
  return batch;
}

torch::Tensor weighted_loss(const torch::Tensor& logits, const Batch& batch) {
  const auto likely = torch::log_softmax(logits, -1).gather(1, batch.targets.unsqueeze(1));
  return -(likely.squeeze(1) * batch.weights).sum() / batch.weights.sum();
}

}  // namespace coppice::train
