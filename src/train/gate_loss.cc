#include "train/gate_loss.h"

namespace coppice::train {
namespace {

// [B, T]: 1 within the sequence, else 0.
torch::Tensor within(const torch::Tensor& lengths, int64_t tokens) {
  return torch::arange(tokens).unsqueeze(0).lt(lengths.unsqueeze(1)).to(torch::kFloat32);
}

torch::Tensor pages(const torch::Tensor& slots, int64_t page_slots) {
  return (slots + (page_slots - 1)).div(page_slots, "floor");
}

}  // namespace

torch::Tensor footprint_weights(const torch::Tensor& lengths, int64_t tokens, int64_t window) {
  const auto life = (lengths.unsqueeze(1) - torch::arange(tokens).unsqueeze(0)).clamp_min(1);
  const auto inside = (static_cast<double>(window) / life.to(torch::kFloat32)).clamp_max(1);
  return (1 - inside) * within(lengths, tokens);
}

torch::Tensor keep_rate(const torch::Tensor& kept, const torch::Tensor& weights, int64_t sinks) {
  const auto gated = torch::arange(weights.size(1)).ge(sinks).to(torch::kFloat32);  // [T]
  const auto share = (kept.mean({1, 2}) * gated + (1 - gated)) * weights;           // [B, T]
  return share.sum(1) / weights.sum(1).clamp_min(1e-6);
}

torch::Tensor polarisation(const torch::Tensor& probabilities, const torch::Tensor& lengths) {
  const auto inside = within(lengths, probabilities.size(3));
  const auto mean = (probabilities * (1 - probabilities)).mean({1, 2});  // [B, T]
  return (mean * inside).sum() / inside.sum();
}

torch::Tensor distillation(const torch::Tensor& teacher, const torch::Tensor& student) {
  const auto log_teacher = torch::log_softmax(teacher, -1);
  const auto log_student = torch::log_softmax(student, -1);
  return (log_teacher.exp() * (log_teacher - log_student)).sum(-1).mean();
}

double page_footprint(const torch::Tensor& kept, const Visibility& visibility, int64_t page_slots) {
  const int64_t n = kept.size(2);
  auto stays = kept.to(torch::kInt64).clone();
  stays.slice(2, 0, std::min(visibility.sinks, n)).fill_(1);
  const auto kept_slots = stays.sum(2);  // [L, Hkv]
  const auto dropped_slots = n - kept_slots;
  const int64_t past = std::max<int64_t>(0, n - visibility.window);
  const auto past_dropped = past - stays.slice(2, 0, past).sum(2);
  const auto first_page = past_dropped.div(page_slots, "floor");
  const auto held =
      torch::where(dropped_slots.gt(past_dropped), pages(dropped_slots, page_slots) - first_page,
                   torch::zeros({}, torch::kInt64));
  const auto all = (kept_slots.numel() * ((n + page_slots - 1) / page_slots));
  return static_cast<double>((pages(kept_slots, page_slots) + held).sum().item<int64_t>()) /
         static_cast<double>(all);
}

}  // namespace coppice::train
