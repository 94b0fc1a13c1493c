#include "engine/step_profile.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "tensor/quant_block.h"

namespace coppice::engine {
namespace {

// Which of a layer's products have this weight shape; empty where the config does not say.
std::string product_role(const model::ModelConfig& config, int64_t n, int64_t k) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t queries = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t keys = int64_t{config.num_key_value_heads} * config.head_dim;
  std::string roles;
  const auto role = [&](bool is, const char* name) {
    if (is) roles += (roles.empty() ? "" : ", ") + std::string(name);
  };
  role(k == hidden && n == queries + 2 * keys, "qkv");
  role(k == hidden && n == queries, "q");
  role(k == hidden && n == keys, "k, v");
  role(n == hidden && k == queries, "attention out");
  role(k == hidden && n == 2 * inner, "gate and up");
  role(k == hidden && n == inner, "gate, up");
  role(n == hidden && k == inner, "down");
  role(k == hidden && n == config.vocab_size, "logits");
  return roles;
}

std::string name_of(const ops::OpCount& count, const model::ModelConfig& config) {
  if (count.n == 0) return count.name;
  const std::string role = product_role(config, count.n, count.k);
  return count.name + (role.empty() ? "" : " " + role) + " [" + std::to_string(count.n) + ", " +
         std::to_string(count.k) + "] " + std::string(dtype_name(*count.type));
}

std::string ceiling_of(const ops::OpCount& count) {
  if (!count.type) return "";
  if (is_quantised(*count.type)) return "int8";
  return *count.type == DType::kF32 ? "f32" : "bf16";
}

ProfileEntry part_entry(const char* name, int64_t steps, double seconds) {
  ProfileEntry entry;
  entry.name = name;
  entry.calls = steps;
  entry.seconds = seconds;
  return entry;
}

}  // namespace

void StepProfile::reset() {
  if (operations_ == nullptr) return;
  operations_->reset();
  seconds_ = {};
  steps_ = rows_ = 0;
}

Profile StepProfile::report(const model::ModelConfig& config) const {
  Profile out;
  if (operations_ == nullptr) return out;
  out.steps = steps_;
  out.rows = rows_;
  out.seconds = std::accumulate(seconds_.begin(), seconds_.end(), 0.0) + operations_->seconds();
  for (const ops::OpCount& count : operations_->counts()) {
    if (count.calls == 0) continue;
    out.entries.push_back({name_of(count, config), ceiling_of(count), count.calls, count.seconds,
                           count.flops, count.bytes, count.exps});
  }
  out.entries.push_back(part_entry("plan", steps_, seconds_[kPlan]));
  out.entries.push_back(part_entry("sampling", steps_, seconds_[kSampling]));
  out.entries.push_back(part_entry("rest", steps_, seconds_[kModel] + seconds_[kCommit]));
  std::stable_sort(
      out.entries.begin(), out.entries.end(),
      [](const ProfileEntry& a, const ProfileEntry& b) { return a.seconds > b.seconds; });
  return out;
}

}  // namespace coppice::engine
