#include "train/adamw.h"

#include <algorithm>
#include <cmath>

namespace coppice::train {

AdamW::AdamW(const NamedTensors& parameters, const AdamWOptions& options)
    : parameters_(parameters), options_(options) {
  for (const auto& [name, p] : parameters_) {
    m_.push_back(torch::zeros(p.sizes()));
    v_.push_back(torch::zeros(p.sizes()));
  }
}

double AdamW::step(double learning_rate) {
  torch::NoGradGuard no_grad;
  const auto& o = options_;
  double square = 0;
  for (const auto& [name, p] : parameters_) {
    const double norm = p.grad().norm().item<double>();
    square += norm * norm;
  }
  const double norm = std::sqrt(square);
  const double shrink = norm > o.clip ? o.clip / norm : 1.0;
  ++steps_;
  const double t = static_cast<double>(steps_);
  const double correct1 = 1.0 - std::pow(o.beta1, t);
  const double correct2 = std::sqrt(1.0 - std::pow(o.beta2, t));
  for (size_t i = 0; i < parameters_.size(); ++i) {
    torch::Tensor p = parameters_[i].second;
    torch::Tensor g = p.grad();
    g.mul_(shrink);
    if (p.dim() > 1) p.mul_(1.0 - learning_rate * o.weight_decay);
    m_[i].lerp_(g, 1.0 - o.beta1);
    v_[i].mul_(o.beta2).addcmul_(g, g, 1.0 - o.beta2);
    const auto denominator = v_[i].sqrt().div_(correct2).add_(o.epsilon);
    p.addcdiv_(m_[i], denominator, -learning_rate / correct1);
    g.zero_();
  }
  return norm;
}

NamedTensors AdamW::state() const {
  NamedTensors out;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    out.emplace_back("adam.m." + parameters_[i].first, m_[i]);
    out.emplace_back("adam.v." + parameters_[i].first, v_[i]);
  }
  return out;
}

}  // namespace coppice::train
