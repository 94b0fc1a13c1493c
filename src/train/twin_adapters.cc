// Low-rank adapters of the twin's attention projections.
#include <array>
#include <cmath>

#include "train/twin.h"

namespace coppice::train {
namespace {

// One projection of a layer with its adapter.
struct Adapted {
  const char* name;  // "q"
  torch::Tensor TwinLayer::*weight;
  Adapter TwinLayer::*adapter;
};
constexpr std::array<Adapted, 4> kAdapted{{{"q", &TwinLayer::q, &TwinLayer::q_adapter},
                                           {"k", &TwinLayer::k, &TwinLayer::k_adapter},
                                           {"v", &TwinLayer::v, &TwinLayer::v_adapter},
                                           {"o", &TwinLayer::o, &TwinLayer::o_adapter}}};

}  // namespace

void Twin::add_adapters(int64_t rank, uint64_t seed) {
  torch::manual_seed(seed);
  for (TwinLayer& layer : layers_) {
    for (const Adapted& part : kAdapted) {
      const torch::Tensor& weight = layer.*part.weight;
      const double fan = 1.0 / std::sqrt(static_cast<double>(weight.size(1)));
      Adapter& adapter = layer.*part.adapter;
      adapter.down = (torch::randn({rank, weight.size(1)}) * fan).requires_grad_(true);
      adapter.up = torch::zeros({weight.size(0), rank}).requires_grad_(true);
    }
  }
}

NamedTensors Twin::adapters() const {
  NamedTensors out;
  for (size_t l = 0; l < layers_.size(); ++l) {
    for (const Adapted& part : kAdapted) {
      const Adapter& adapter = layers_[l].*part.adapter;
      if (!adapter.down.defined()) continue;
      const std::string at = "layers." + std::to_string(l) + "." + part.name;
      out.emplace_back(at + ".down", adapter.down);
      out.emplace_back(at + ".up", adapter.up);
    }
  }
  return out;
}

NamedTensors Twin::merged() const {
  torch::NoGradGuard no_grad;
  NamedTensors out = named_;
  for (const TwinLayer& layer : layers_) {
    for (const Adapted& part : kAdapted) {
      const Adapter& adapter = layer.*part.adapter;
      if (!adapter.down.defined()) continue;
      for (auto& [name, tensor] : out) {
        if (tensor.is_same(layer.*part.weight)) {
          tensor = tensor + torch::mm(adapter.up, adapter.down);
          break;
        }
      }
    }
  }
  return out;
}

}  // namespace coppice::train
