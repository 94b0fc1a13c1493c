// Off means off (architecture, promise 5): with a gate loaded, a request in tier off runs the same
// calls of the backend on plans of the same kind and yields the same bits, on every golden model,
// alone and in one step with gated ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "engine/test_harness.h"
#include "model/test_files.h"
#include "ops/passing_backend.h"
#include "promise3.h"

namespace coppice::engine {
namespace {

constexpr const char* kPolicy = "policy:random,keep=0.25,window=16";
// Over two pages of every backend, and a fold range.
constexpr size_t kPrompt = 8 * 64 + 45;
constexpr int32_t kAnswer = 8;

// What a backend was asked to do since the count began.
struct Calls {
  std::map<std::string, int64_t> of;
  int64_t gated_plans = 0, mixed_plans = 0;
};

class CountingBackend : public ops::PassingBackend {
 public:
  CountingBackend(std::unique_ptr<ops::Backend> inner, Calls& calls)
      : ops::PassingBackend(std::move(inner)), calls_(calls) {}

  void zero_pages(const ops::KvArena& arena, std::span<const ops::PageId> ids) override {
    calls_.of["zeroed pages"] += std::ssize(ids);
    inner_->zero_pages(arena, ids);
  }
  void copy_slots(const ops::KvArena& arena, ops::PageId from, int32_t from_slot, ops::PageId to,
                  int32_t to_slot, int32_t slots) override {
    calls_.of["copied slots"] += slots;
    inner_->copy_slots(arena, from, from_slot, to, to_slot, slots);
  }
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override {
    ++calls_.of["rms_norm"];
    inner_->rms_norm(x, weight, eps, out);
  }
  void matmul(const TensorView& x, const ops::Weight& w, const TensorView& bias,
              const TensorView& out) override {
    ++calls_.of["matmul"];
    inner_->matmul(x, w, bias, out);
  }
  void matmul_each(const TensorView& x, std::span<const ops::Product> products) override {
    calls_.of["products"] += std::ssize(products);
    inner_->matmul_each(x, products);
  }
  void add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight, float eps,
                    const TensorView& out) override {
    ++calls_.of["add_rms_norm"];
    inner_->add_rms_norm(x, y, weight, eps, out);
  }
  void add(const TensorView& x, const TensorView& y) override {
    ++calls_.of["add"];
    inner_->add(x, y);
  }
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override {
    ++calls_.of["swiglu"];
    inner_->swiglu(gate, up, out);
  }
  void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) override {
    ++calls_.of["rope"];
    inner_->rope(x, cos, sin);
  }
  void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                   const TensorView& out) override {
    ++calls_.of["gather_rows"];
    inner_->gather_rows(x, rows, out);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                const ops::AttentionPlan& plan, const ops::KvArena& arena) override {
    ++calls_.of["write_kv"];
    inner_->write_kv(k, v, layer, plan, arena);
  }
  void rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView& cos, const TensorView& sin, int32_t layer,
                     const ops::AttentionPlan& plan, const ops::KvArena& arena) override {
    ++calls_.of["rope_write_kv"];
    inner_->rope_write_kv(q, k, v, cos, sin, layer, plan, arena);
  }
  void to_host(const TensorView& x, void* host) override {
    ++calls_.of["to_host"];
    inner_->to_host(x, host);
  }
  void attention(const TensorView& q, const ops::AttentionParams& params,
                 const ops::AttentionPlan& plan, const ops::KvArena& arena,
                 const TensorView& out) override {
    ++calls_.of["attention"];
    calls_.of["segments"] += std::ssize(plan.segments);
    calls_.of["parts"] += std::ssize(plan.parts);
    // The numbers that a kernel reads beside the pages themselves.
    calls_.of["plan entries"] += std::ssize(plan.targets) + std::ssize(plan.row_last) +
                                 std::ssize(plan.dropped_last) + plan.row_stride +
                                 plan.target_stride;
    if (plan.gated()) note_gated(plan, params.layer);
    inner_->attention(q, params, plan, arena, out);
  }

 private:
  void note_gated(const ops::AttentionPlan& plan, int32_t layer) {
    ++calls_.gated_plans;
    bool drops = false, off = false;
    const int32_t list = layer * plan.kv_heads;
    for (int32_t row = 0; row < plan.rows; ++row) {
      const bool sees = plan.first_dropped(list, row) < plan.last_dropped(list, row);
      drops |= sees;
      off |= !sees && plan.last(list, row) > static_cast<int32_t>(kPrompt) / 2;
    }
    calls_.mixed_plans += drops && off ? 1 : 0;
  }

  Calls& calls_;
};

// gate: "none", "policy", or a kind whose weights are drawn, which asks the model for more.
std::string gate_spec(const std::string& model, const std::string& gate) {
  static const model::TemporaryDirectory directory;
  if (gate == "none") return "";
  if (gate == "policy") return kPolicy;
  return random_gate_file(directory.path(), model, model::GateKind::kCausal,
                          [](model::GateHeader& header) { header.window = 16; });
}

EngineOptions options_of(const std::string& model, const std::string& backend,
                         const std::string& gate) {
  const bool narrow = model.ends_with("-bf16");
  EngineOptions o = golden_options(model);
  o.backend = backend;
  o.dtype = narrow ? WeightType::kBF16 : WeightType::kF32;
  o.kv_type = narrow ? KvType::kBF16 : KvType::kF32;
  o.max_live = 16;
  o.max_rows = 600;
  o.slice = 300;
  o.prompt_logits = true;
  o.gate = gate_spec(model, gate);
  return o;
}

Rig rig_of(const EngineOptions& options, Calls& calls) {
  return Rig(options, [&](std::unique_ptr<ops::Backend> inner) {
    return std::make_unique<CountingBackend>(std::move(inner), calls);
  });
}

Request request_of(std::vector<TokenId> prompt, KvTier tier, int32_t answer = kAnswer) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = greedy(answer);
  request.kv_tier = tier;
  return request;
}

// Four prompts that share beginnings, cold and warm: every path of the ungated cache.
std::vector<Take> run_all(Rig& rig) {
  std::vector<Take> out;
  for (int round = 0; round < 2; ++round) {
    std::vector<std::shared_ptr<Tape>> tapes;
    for (uint32_t i = 0; i < 4; ++i) {
      const size_t shared = kPrompt - i * 77;
      Request request = request_of(
          joined(first_of(noise(1, kPrompt), shared), noise(10 + i, i * 7)), KvTier::kOff);
      // Of no meaning where nothing is dropped.
      request.exact = {{5, 50}};
      request.boundaries = {33, 260};
      tapes.push_back(rig.submit(std::move(request)));
    }
    rig.run();
    for (const auto& tape : tapes) out.push_back(tape->take());
  }
  return out;
}

using Where = std::tuple<const char*, const char*, const char*>;  // model, backend, gate

class OffMeansOff : public testing::TestWithParam<Where> {
 protected:
  EngineOptions options(const char* gate) const {
    return options_of(std::get<0>(GetParam()), std::get<1>(GetParam()), gate);
  }
  EngineOptions options() const { return options(std::get<2>(GetParam())); }
};

TEST_P(OffMeansOff, TheSameCallsAndTheSameBits) {
  Calls plain_calls, loaded_calls;
  Rig plain = rig_of(options("none"), plain_calls);
  Rig loaded = rig_of(options(), loaded_calls);
  plain_calls = loaded_calls = {};  // opening is not a step
  const std::vector<Take> base = run_all(plain), got = run_all(loaded);
  for (size_t i = 0; i < base.size(); ++i) {
    EXPECT_EQ(got[i].result.finish_reason, FinishReason::kLength);
    EXPECT_EQ(got[i].logits, base[i].logits);
    EXPECT_EQ(got[i].tokens, base[i].tokens);
    EXPECT_EQ(got[i].result.usage.cached_tokens, base[i].result.usage.cached_tokens);
    EXPECT_EQ(got[i].result.usage.kv_bytes, base[i].result.usage.kv_bytes);
    EXPECT_TRUE(got[i].result.usage.keep_ratio.empty());
    EXPECT_EQ(got[i].result.kv.keep_ratio, 1.0);
  }
  EXPECT_GT(base.front().logits.size(), kPrompt);
  EXPECT_GT(base.back().result.usage.cached_tokens, 0);
  EXPECT_GT(loaded_calls.of["attention"], 0);
  EXPECT_EQ(loaded_calls.of, plain_calls.of);
  EXPECT_EQ(loaded_calls.gated_plans, 0);
  EXPECT_EQ(loaded.core().stats().pages_free, plain.core().stats().pages_free);
  EXPECT_EQ(loaded.core().stats().overlays, 0);

  // The counts can tell: the same requests gated are other calls on other plans.
  const Calls before = loaded_calls;
  loaded.submit(request_of(noise(1, kPrompt), KvTier::kHard));
  loaded.run();
  EXPECT_GT(loaded_calls.gated_plans, 0);
  EXPECT_GT(loaded_calls.of["plan entries"], before.of.at("plan entries"));
}

// `ref` takes a second for each prompt, so not for every model.
class OffBesideGated : public OffMeansOff {};

// Requests of both kinds with equal prompts in the same steps: each as it is alone.
TEST_P(OffBesideGated, EachIsAsAlone) {
  Calls calls;
  const auto alone = [&](KvTier tier, uint32_t i) {
    Rig rig(tier == KvTier::kOff ? options("none") : options());
    const auto tape = rig.submit(request_of(noise(i, kPrompt), tier));
    rig.run();
    return tape->take();
  };
  Rig rig = rig_of(options(), calls);
  std::map<std::pair<uint32_t, KvTier>, std::shared_ptr<Tape>> tapes;
  for (const uint32_t i : {1u, 2u}) {
    for (const KvTier tier : {KvTier::kNormal, KvTier::kOff}) {
      tapes[{i, tier}] = rig.submit(request_of(noise(i, kPrompt), tier, 4 * kAnswer));
    }
  }
  rig.run();
  EXPECT_EQ(rig.core().stats().max_step_sequences, 4);
  EXPECT_GT(calls.mixed_plans, 0);
  for (const auto& [of, tape] : tapes) {
    const bool off = of.second == KvTier::kOff;
    EXPECT_EQ(tape->take().result.usage.cached_tokens, 0);  // tiers do not share
    EXPECT_EQ(tape->take().result.usage.keep_ratio.empty(), off);
    const Diff diff = compare(*tape, alone(of.second, of.first));
    EXPECT_EQ(diff.different, 0);
    EXPECT_EQ(diff.compared, static_cast<int>(kPrompt) + kAnswer - 1);
  }
}

std::string name_of(const testing::TestParamInfo<Where>& at) {
  std::string name = std::string(std::get<0>(at.param)) + "_" + std::get<1>(at.param) + "_" +
                     std::get<2>(at.param);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

const auto kModels = testing::Values("llama", "llama-bf16", "llama3", "llama3-bf16", "qwen2",
                                     "qwen2-bf16", "qwen3", "qwen3-bf16");
const auto kGates = testing::Values("policy", "causal");

INSTANTIATE_TEST_SUITE_P(Goldens, OffMeansOff,
                         testing::Combine(kModels, testing::Values("ref", "cpu"), kGates), name_of);
INSTANTIATE_TEST_SUITE_P(Goldens, OffBesideGated,
                         testing::Combine(kModels, testing::Values("cpu"), kGates), name_of);
INSTANTIATE_TEST_SUITE_P(Ref, OffBesideGated,
                         testing::Combine(testing::Values("llama"), testing::Values("ref"), kGates),
                         name_of);

}  // namespace
}  // namespace coppice::engine
