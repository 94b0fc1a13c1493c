// A step allocates nothing, neither by itself nor in the backend (architecture, section 7).
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "model/random_checkpoint.h"
#include "model/test_gated_model.h"
#include "model/test_golden.h"
#include "model/test_sequence.h"
#include "ops/allocation_counter.h"

namespace coppice::model::testing {
namespace {

constexpr int32_t kRows = 200, kSlots = 1500;

// The allocations of a step that brings the path to `slots`, with its plan and inputs made before.
int64_t allocations_of_step(Model& model, const TestSequence& sequence, int32_t rows,
                            int32_t slots) {
  std::vector<int32_t> tokens(static_cast<size_t>(rows), 1), positions(tokens.size());
  std::iota(positions.begin(), positions.end(), slots - rows);
  const std::vector<int32_t> last{rows - 1};
  ops::AttentionPlan plan = sequence.make_plan(rows);
  plan.parts[0].count = slots;
  for (ops::KvTarget& target : plan.targets) target.slot += slots - rows;
  for (int32_t& row_last : plan.row_last) row_last += slots - rows;
  const ForwardInput input{.tokens = tokens,
                           .positions = positions,
                           .owners = {},
                           .evaluated = {},
                           .logit_rows = last,
                           .plan = plan,
                           .arena = sequence.arena()};
  return ops::allocations_of([&] { model.forward(input); });
}

struct Setup {
  int threads;
  std::optional<DType> weights;
};

std::string setup_name(const ::testing::TestParamInfo<Setup>& info) {
  const auto& [threads, weights] = info.param;
  return std::string(weights ? dtype_name(*weights) : "plain") + "_" + std::to_string(threads);
}

class Allocations : public ::testing::TestWithParam<Setup> {};

// Threads decide where rows are split by slots and their partials kept: three do, for a path of
// more than one range.
TEST_P(Allocations, AStepAllocatesNothingWithinTheReservedLimits) {
  const auto backend = make_backend("cpu", DType::kBF16, GetParam().threads);
  // A golden whose heads are normed; the quantised types want rows of whole blocks.
  const auto checkpoint =
      GetParam().weights ? open_random("256,2,4,2,64,512,300").value() : open_golden("qwen3");
  const auto model = Model::load(*checkpoint, *backend, {.weights = GetParam().weights}).value();
  const ModelConfig& config = model->config();
  const int32_t queries = config.num_attention_heads * config.head_dim;
  ASSERT_TRUE(
      backend->reserve({.rows = kRows,
                        .slots = kSlots,
                        .query_heads = config.num_attention_heads,
                        .kv_heads = config.num_key_value_heads,
                        .head_dim = config.head_dim,
                        .widest = std::max({config.hidden_size, config.intermediate_size, queries}),
                        .quantised = true}));
  const int64_t scratch = backend->scratch_bytes();
  EXPECT_GT(scratch, 0);
  const TestSequence sequence(*backend, config, DType::kBF16, kSlots);
  for (const auto& [rows, slots] : std::vector<std::pair<int32_t, int32_t>>{
           {4, 4}, {1, 5}, {kRows, 300}, {1, 700}, {1, kSlots}, {kRows, kSlots}}) {
    EXPECT_EQ(allocations_of_step(*model, sequence, rows, slots), 0)
        << rows << " rows, path of " << slots;
    EXPECT_EQ(backend->scratch_bytes(), scratch) << rows << " rows, path of " << slots;
  }
}
INSTANTIATE_TEST_SUITE_P(, Allocations,
                         ::testing::Values(Setup{1, {}}, Setup{2, {}}, Setup{3, {}},
                                           Setup{1, DType::kQ8_0}, Setup{3, DType::kQ8_0},
                                           Setup{2, DType::kQ4_0}, Setup{1, DType::kQ4_K},
                                           Setup{3, DType::kQ4_K}),
                         setup_name);

// Nor does one with gated rows, which decides in every layer what goes where.
TEST(GatedAllocations, AStepWithGatedRowsAllocatesNothingEither) {
  for (const char* what : {"causal", "policy:key-norm,threshold=2"}) {
    for (const int threads : {1, 3}) {
      const Gated gated("qwen3", what, make_backend("cpu", DType::kBF16, threads));
      const ModelConfig& config = gated.config();
      const int32_t queries = config.num_attention_heads * config.head_dim;
      ASSERT_TRUE(gated.backend->reserve(
          {.rows = kRows,
           .slots = kCapacity,
           .query_heads = config.num_attention_heads,
           .kv_heads = config.num_key_value_heads,
           .head_dim = config.head_dim,
           .widest = std::max({config.hidden_size, config.intermediate_size, queries}),
           .quantised = false}));
      GatedTestCache cache = gated.cache(DType::kBF16);
      GatedTestSequence& sequence = cache.begin(gated.gate->rule(GateTier::kMild));
      const std::vector<int32_t> tokens = random_tokens(kRows);
      for (const size_t rows : {4u, 1u, 200u, 1u, 200u, 200u, 1u}) {
        GatedTestCache::Step step(cache, {{sequence, std::span(tokens).first(rows)}});
        EXPECT_EQ(ops::allocations_of([&] { step.forward(*gated.model); }), 0)
            << what << " on " << threads << ", " << rows << " rows";
      }
    }
  }
}

// That the first test can fail: without the reservation the quantised rows of a larger step find
// no room,
TEST(AllocationsCanary, QuantisedRowsThatWereNotReservedGrowAndAreSeen) {
  const auto backend = make_backend("cpu", DType::kBF16, 1);
  const auto checkpoint = open_random("256,2,4,2,64,512,300").value();
  const auto model = Model::load(*checkpoint, *backend, {.weights = DType::kQ4_K}).value();
  const TestSequence sequence(*backend, model->config(), DType::kBF16, kSlots);
  EXPECT_GT(allocations_of_step(*model, sequence, 4, 4), 0);
  EXPECT_EQ(allocations_of_step(*model, sequence, 4, 4), 0);
  const int64_t before = backend->scratch_bytes();
  EXPECT_GT(allocations_of_step(*model, sequence, kRows, kRows), 0);
  EXPECT_GT(backend->scratch_bytes(), before);
}

// and a longer path the attention's partials.
TEST(AllocationsCanary, ScratchThatWasNotReservedGrowsAndIsSeen) {
  const auto backend = make_backend("cpu", DType::kBF16, 3);
  const auto model = Model::load(*open_golden("qwen3"), *backend, {}).value();
  const TestSequence sequence(*backend, model->config(), DType::kBF16, kSlots);
  EXPECT_GT(allocations_of_step(*model, sequence, 4, 4), 0);
  EXPECT_EQ(allocations_of_step(*model, sequence, 4, 5), 0);
  const int64_t before = backend->scratch_bytes();
  EXPECT_GT(allocations_of_step(*model, sequence, 1, kSlots), 0);
  EXPECT_GT(backend->scratch_bytes(), before);
}

}  // namespace
}  // namespace coppice::model::testing
