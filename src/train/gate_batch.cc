#include "train/gate_batch.h"

#include <algorithm>

namespace coppice::train {

GateBatch make_gate_batch(const std::vector<GateSample>& samples, int most_rows, uint64_t seed) {
  size_t longest = 2;
  for (const GateSample& sample : samples) longest = std::max(longest, sample.ids.size());
  const size_t steps = longest - 1;
  std::vector<int64_t> inputs(samples.size() * steps, 0), lengths, prompts, rows, targets;
  storefront::Random random(seed);
  for (size_t b = 0; b < samples.size(); ++b) {
    const GateSample& sample = samples[b];
    std::copy(sample.ids.begin(), sample.ids.end() - 1,
              inputs.begin() + static_cast<int64_t>(b * steps));
    lengths.push_back(static_cast<int64_t>(sample.ids.size()) - 1);
    prompts.push_back(sample.prompt);
    int predicted = 0;
    for (const auto& [begin, end] : sample.answers) predicted += end - begin;
    // Each of those left is taken with the chance that leaves so many.
    int wanted = std::min(predicted, most_rows);
    for (const auto& [begin, end] : sample.answers) {
      for (int i = begin; i < end; ++i, --predicted) {
        if (static_cast<int>(random.below(static_cast<uint32_t>(predicted))) >= wanted) continue;
        --wanted;
        rows.push_back(static_cast<int64_t>(b * steps) + i - 1);
        targets.push_back(sample.ids[static_cast<size_t>(i)]);
      }
    }
  }
  GateBatch batch;
  const auto count = static_cast<int64_t>(samples.size());
  batch.inputs = torch::tensor(inputs, torch::kInt64).view({count, static_cast<int64_t>(steps)});
  batch.lengths = torch::tensor(lengths, torch::kInt64);
  batch.prompts = torch::tensor(prompts, torch::kInt64);
  batch.rows = torch::tensor(rows, torch::kInt64);
  batch.targets = torch::tensor(targets, torch::kInt64);
  return batch;
}

torch::Tensor answer_loss(const torch::Tensor& logits, const torch::Tensor& teacher,
                          const GateBatch& batch) {
  const auto likely =
      torch::log_softmax(logits, -1).gather(1, batch.targets.unsqueeze(1)).squeeze(1);
  if (!teacher.defined()) return -likely.mean();
  return -(likely * teacher.argmax(-1).eq(batch.targets)).mean();
}

}  // namespace coppice::train
