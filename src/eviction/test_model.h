// What:    (tests) a golden model with what the room runs on it, and its double: plain loops that
//          say what an answer's logits are under any rule of who sees whom.
// Owns:    all of it.
// Threads: one.
// Fails:   CHECKs.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/loader.h"
#include "eviction/kept_context.h"
#include "model/test_files.h"
#include "model/test_gate.h"
#include "model/test_naive_decoder.h"

namespace coppice::eviction::testing {

inline std::vector<int32_t> token_noise(uint32_t seed, size_t count) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = 3 + static_cast<int32_t>(random() % 300);
  return tokens;
}

class TestModel {
 public:
  // gate: of a random gate of that kind, if any.
  explicit TestModel(std::optional<model::GateKind> gate = {}, int32_t max_rows = 200) {
    EngineOptions options;
    options.model = std::string(COPPICE_TEST_DATA) + "/models/llama";
    options.threads = 1;
    options.dtype = WeightType::kF32;
    options.kv_type = KvType::kF32;
    options.kv_budget = int64_t{64} << 20;
    options.max_rows = max_rows;
    options.slice = max_rows;
    options.max_live = 8;
    if (gate) {
      const auto base = model::Checkpoint::open(options.model);
      header_ = model::testing::gate_header(*gate, **base);
      options.gate = directory_.path() + "/gate.safetensors";
      CHECK(model::write_gate_file(options.gate, header_, model::testing::random_gate(header_, 1)));
    }
    log_ = std::make_shared<QueryLog>();
    auto loaded = engine::load(options, logged(engine::backend_for(options).value(), log_), {},
                               engine::Purpose::kEvaluate);
    CHECK(loaded);
    loaded_ = std::move(*loaded);
    limits_.max_rows = max_rows;
    limits_.max_logit_rows = options.max_live;
  }

  std::unique_ptr<KeptContext> context(const Room& room) {
    return KeptContext::create(*parts().model, *parts().backend, log_, DType::kF32, limits_, room)
        .value();
  }
  engine::Parts& parts() { return loaded_.parts; }
  const model::ModelOptions& limits() const { return limits_; }
  const model::GateHeader& header() const { return header_; }
  const model::ModelConfig& config() const { return loaded_.parts.model->config(); }
  int32_t lists() const { return config().num_hidden_layers * config().num_key_value_heads; }
  ops::GateRule rule() const { return loaded_.parts.gate->rule(model::GateTier::kNormal); }

  using Inputs = model::testing::NaiveDecoder::Inputs;
  using Sees = model::testing::NaiveDecoder::Sees;
  // Mean -log p of following[1..] after the context.
  double naive_nats(
      const std::vector<int32_t>& context, const std::vector<int32_t>& following, const Sees& sees,
      const Inputs& inputs = [](int32_t, const auto&) {}) const {
    std::vector<int32_t> all = context;
    all.insert(all.end(), following.begin(), following.end());
    const model::testing::NaiveDecoder decoder(*loaded_.parts.checkpoint);
    const auto logits = decoder.forward(all, inputs, sees);
    double sum = 0;
    for (size_t i = 0; i + 1 < following.size(); ++i) {
      const auto row =
          logits.values.begin() + static_cast<int64_t>((context.size() + i) * logits.cols);
      const std::vector<float> values(row, row + static_cast<int64_t>(logits.cols));
      sum += nats_of(values, following[i + 1]);
    }
    return sum / static_cast<double>(following.size() - 1);
  }
  // Whether a row of a context of `tokens`, or after it, sees a key under a gate whose decisions
  // are `mask`; rows after the context see each other.
  static bool gated_sees(const KeepMask& mask, const ops::GateRule& rule, int32_t list,
                         size_t query, size_t key) {
    if (key > query) return false;
    const auto tokens = static_cast<size_t>(mask.tokens);
    if (key >= tokens || query - key < static_cast<size_t>(rule.window)) return true;
    return mask.list(list)[key] != 0;
  }

 private:
  model::TemporaryDirectory directory_;
  model::GateHeader header_;
  std::shared_ptr<QueryLog> log_;
  engine::Loaded loaded_;
  model::ModelOptions limits_;
};

}  // namespace coppice::eviction::testing
