// What a gate's training saves and goes on from.
#include <charconv>

#include <nlohmann/json.hpp>

#include "train/gate_trainer.h"

namespace coppice::train {

// What a resumed run must have in common with the one it goes on with.
std::string GateTrainer::recipe() const {
  const auto& o = options_;
  return nlohmann::ordered_json{{"base", base_hash_},
                                {"method", o.method == GateMethod::kKvzap ? "kvzap" : "learned"},
                                {"kind", model::gate_kind_name(o.kind)},
                                {"heads", net_.header().heads},
                                {"head-dim", net_.header().head_dim},
                                {"reach", net_.header().reach},
                                {"window", o.window},
                                {"sinks", o.sinks},
                                {"seed", o.seed},
                                {"length", o.length},
                                {"shortest", o.shortest},
                                {"step-tokens", o.step_tokens},
                                {"lora", o.lora}}
      .dump();
}

NamedTensors GateTrainer::state() const {
  NamedTensors tensors = net_.parameters();
  for (const NamedTensors& more : {student_.adapters(), adam_.state(), adapter_adam_.state()}) {
    tensors.insert(tensors.end(), more.begin(), more.end());
  }
  return tensors;
}

Status GateTrainer::save() {
  std::map<std::string, std::string> metadata = {{"step", std::to_string(adam_.steps())},
                                                 {"tokens", std::to_string(tokens_)},
                                                 {"recipe", recipe()}};
  NamedTensors tensors = state();
  const auto& excess = objective_.excess();
  tensors.emplace_back("excess", torch::tensor(std::vector<float>(excess.begin(), excess.end())));
  return write_tensors(checkpoint(), tensors, metadata);
}

Status GateTrainer::restore() {
  const std::string path = checkpoint().string();
  TRY(TensorFile file, read_tensors(path));
  const auto theirs = nlohmann::ordered_json::parse(file.metadata["recipe"], nullptr, false);
  if (!theirs.is_object()) return fail(ErrorCode::kCorrupt, path + ": metadata recipe: no object");
  const auto ours = nlohmann::ordered_json::parse(recipe());
  for (const auto& [key, value] : ours.items()) {
    if (theirs.contains(key) && theirs[key] == value) continue;
    return fail(ErrorCode::kInvalidArgument,
                path + ": made with another --" + key + ": " +
                    (theirs.contains(key) ? theirs[key].dump() : "none") + ", not " + value.dump());
  }
  const auto number = [&](const char* key) -> Expected<int64_t> {
    const std::string& text = file.metadata[key];
    int64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    if (error != std::errc() || end != text.data() + text.size() || n < 0) {
      return fail(ErrorCode::kCorrupt, path + ": metadata " + key + ": no number");
    }
    return n;
  };
  TRY_STATUS(copy_tensors(file, "", state(), path));
  std::array<float, kTierBins> excess{};
  const auto means = torch::from_blob(excess.data(), {kTierBins}, torch::kFloat32);
  TRY_STATUS(copy_tensors(file, "", {{"excess", means}}, path));
  objective_.set_excess(excess);
  TRY(const int64_t step, number("step"));
  TRY(tokens_, number("tokens"));
  adam_.set_steps(step);
  adapter_adam_.set_steps(step);
  return {};
}

}  // namespace coppice::train
