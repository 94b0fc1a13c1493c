// What a step asks of the backend and of memory: nothing new without gated rows, one product a
// layer with them.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "model/test_gated_model.h"
#include "model/test_sequence.h"
#include "ops/passing_backend.h"

namespace coppice::model::testing {
namespace {

// Notes every call of the network with its shapes.
class NotingBackend : public ops::PassingBackend {
 public:
  using ops::PassingBackend::PassingBackend;
  void embed(std::span<const int32_t> ids, const ops::Weight& table,
             const TensorView& out) override {
    calls.push_back("embed");
    ops::PassingBackend::embed(ids, table, out);
  }
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override {
    calls.push_back("rms_norm " + x.shape().text());
    ops::PassingBackend::rms_norm(x, weight, eps, out);
  }
  void matmul(const TensorView& x, const ops::Weight& w, const TensorView& bias,
              const TensorView& out) override {
    calls.push_back("matmul " + out.shape().text());
    ops::PassingBackend::matmul(x, w, bias, out);
  }
  void matmul_each(const TensorView& x, std::span<const ops::Product> products) override {
    std::string call = "matmul_each";
    for (const ops::Product& product : products)
      call.append(" ").append(product.out.shape().text());
    calls.push_back(call);
    ops::PassingBackend::matmul_each(x, products);
  }
  void add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight, float eps,
                    const TensorView& out) override {
    calls.push_back("add_rms_norm");
    ops::PassingBackend::add_rms_norm(x, y, weight, eps, out);
  }
  void add(const TensorView& x, const TensorView& y) override {
    calls.push_back("add");
    ops::PassingBackend::add(x, y);
  }
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override {
    calls.push_back("swiglu");
    ops::PassingBackend::swiglu(gate, up, out);
  }
  void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) override {
    calls.push_back("rope");
    ops::PassingBackend::rope(x, cos, sin);
  }
  void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                   const TensorView& out) override {
    calls.push_back("gather_rows " + out.shape().text());
    ops::PassingBackend::gather_rows(x, rows, out);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                const ops::AttentionPlan& plan, const ops::KvArena& arena) override {
    calls.push_back("write_kv");
    ops::PassingBackend::write_kv(k, v, layer, plan, arena);
  }
  void rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView& cos, const TensorView& sin, int32_t layer,
                     const ops::AttentionPlan& plan, const ops::KvArena& arena) override {
    calls.push_back("rope_write_kv " + std::to_string(layer));
    ops::PassingBackend::rope_write_kv(q, k, v, cos, sin, layer, plan, arena);
  }
  void attention(const TensorView& q, const ops::AttentionParams& params,
                 const ops::AttentionPlan& plan, const ops::KvArena& arena,
                 const TensorView& out) override {
    calls.push_back("attention " + std::to_string(params.layer));
    ops::PassingBackend::attention(q, params, plan, arena, out);
  }
  void to_host(const TensorView& x, void* host) override {
    calls.push_back("to_host " + x.shape().text());
    ops::PassingBackend::to_host(x, host);
  }

  std::vector<std::string> calls;
};

// The calls of a step of ten rows that are of tier `rule`.
std::vector<std::string> calls_of_step(const std::string& what,
                                       const std::optional<std::string>& tier) {
  auto noting = std::make_unique<NotingBackend>(make_backend("ref", DType::kF32));
  NotingBackend& notes = *noting;
  const Gated gated("llama", what, std::move(noting));
  GatedTestCache cache = gated.cache(DType::kF32);
  GatedTestSequence& sequence =
      cache.begin(tier ? std::optional(gated.gate->rule(GateTier::kMild)) : std::nullopt);
  const std::vector<int32_t> tokens = random_tokens(10);
  GatedTestCache::Step step(cache, {{sequence, tokens}});
  notes.calls.clear();
  step.forward(*gated.model);
  return notes.calls;
}

std::vector<std::string> layer_calls(const std::string& layer, const std::string& gate) {
  std::vector<std::string> calls{"matmul_each [10, 64] [10, 32] [10, 32]"};
  if (!gate.empty()) {
    calls.back().append(" ").append(gate);
    calls.push_back("to_host " + gate);
  }
  calls.insert(calls.end(), {"rope_write_kv " + layer, "attention " + layer});
  if (layer == "1") calls.insert(calls.end(), {"gather_rows [10, 64]", "gather_rows [10, 64]"});
  calls.insert(calls.end(), {"matmul [10, 64]", "add_rms_norm", "matmul_each [10, 128] [10, 128]",
                             "swiglu", "matmul [10, 64]", "add_rms_norm"});
  return calls;
}

std::vector<std::string> step_calls(const std::string& gate) {
  std::vector<std::string> calls{"embed", "rms_norm [10, 64]"};
  for (const char* layer : {"0", "1"}) {
    const std::vector<std::string> more = layer_calls(layer, gate);
    calls.insert(calls.end(), more.begin(), more.end());
  }
  calls.insert(calls.end(), {"matmul [10, 320]", "to_host [10, 320]"});
  return calls;
}

TEST(GatedModel, WithoutGatedRowsTheCallsAreThoseOfAModelWithoutAGate) {
  EXPECT_EQ(calls_of_step("causal", std::nullopt), step_calls(""));
  auto noting = std::make_unique<NotingBackend>(make_backend("ref", DType::kF32));
  const auto model = Model::load(*open_golden("llama"), *noting, {}).value();
  TestSequence sequence(*noting, model->config(), DType::kF32, 16);
  std::vector<int32_t> rows(10);
  std::iota(rows.begin(), rows.end(), 0);
  noting->calls.clear();
  sequence.step(*model, random_tokens(10), rows);
  EXPECT_EQ(noting->calls, step_calls(""));
}

TEST(GatedModel, GatedRowsAskForOneProductMoreALayer) {
  EXPECT_EQ(calls_of_step("point", "mild"), step_calls("[10, 2]"));
  EXPECT_EQ(calls_of_step("causal", "mild"), step_calls("[10, 62]"));
  EXPECT_EQ(calls_of_step("policy:streaming", "mild"), step_calls(""));
}

TEST(GatedModel, ActivationsHaveRoomForTheGateWhereItIsAskedFor) {
  const auto backend = make_backend("ref", DType::kF32);
  const auto base = open_golden("llama");
  const auto bytes = [&](std::optional<GateNeeds> gate) {
    const ModelOptions options{.max_rows = 16, .max_logit_rows = 3, .gate = gate};
    return Model::load(*base, *backend, options).value()->activation_bytes();
  };
  const int64_t none = bytes({});
  // Logits; then columns on both sides, cos and sin, keys.
  EXPECT_EQ(bytes(GateNeeds{}) - none, 4 * 16 * 2);
  EXPECT_EQ(bytes(GateNeeds{.columns = 62, .angles = 5}) - none, 4 * 16 * (2 + 2 * 62 + 2 * 5));
  EXPECT_EQ(bytes(GateNeeds{.keys = true}) - none, 4 * 16 * (2 + 32));
}

}  // namespace
}  // namespace coppice::model::testing
