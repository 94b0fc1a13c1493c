#include "train/gradients.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <thread>

#include <torch/csrc/autograd/autograd.h>

namespace coppice::train {

double add_gradients(const Twin& twin, const std::vector<Batch>& batches, int threads) {
  double weight = 0;
  for (const Batch& batch : batches) weight += batch.weights.sum().item<double>();
  std::vector<torch::Tensor> parameters;
  for (const auto& [name, p] : twin.parameters()) parameters.push_back(p);

  std::vector<std::vector<torch::Tensor>> gradients(batches.size());
  std::vector<double> losses(batches.size());
  std::atomic<size_t> next{0};
  // Torch splits sums by the number of threads an operation has, and that is each thread's own
  // setting: with one everywhere a batch's gradients do not depend on who takes it.
  const int before = at::get_num_threads();
  const bool shared = batches.size() > 1;
  const auto work = [&] {
    if (shared) at::set_num_threads(1);
    for (size_t i = next++; i < batches.size(); i = next++) {
      const Batch& batch = batches[i];
      const auto hidden = twin.hidden(batch.inputs).flatten(0, 1).index_select(0, batch.rows);
      const double share = batch.weights.sum().item<double>() / weight;
      const auto loss = weighted_loss(twin.logits(hidden), batch) * share;
      losses[i] = loss.item<double>();
      gradients[i] = torch::autograd::grad({loss}, parameters);
    }
  };
  std::vector<std::thread> helpers;
  for (int t = 1; shared && t < threads; ++t) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
  at::set_num_threads(before);

  torch::NoGradGuard no_grad;
  double sum = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    sum += losses[i];
    for (size_t p = 0; p < parameters.size(); ++p) {
      torch::Tensor& grad = parameters[p].mutable_grad();
      if (grad.defined()) {
        grad.add_(gradients[i][p]);
      } else {
        grad = gradients[i][p].clone();
      }
    }
  }
  return sum;
}

}  // namespace coppice::train
