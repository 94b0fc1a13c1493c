// What a token's row sees is held against the gate's rule itself, in float64; and slices, company
// and threads change no bit of it.
#include "ops/attention_gate_steps.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "ops/attention_suite.h"

namespace coppice::ops {
namespace {

using namespace gate_steps;

constexpr DType kTypes[] = {DType::kBF16, DType::kF32, DType::kI8};

// The rule in float64: a token's row sees the sinks, the last `window` positions and what is kept.
Case::Output expected(const Script& script, DType type) {
  Case::Output output(kLayers);
  for (int32_t layer = 0; layer < kLayers; ++layer) {
    const auto at = static_cast<size_t>(layer);
    const std::vector<float> k = as_stored(type, kDim, script.k[at]);
    const std::vector<float> v = as_stored(type, kDim, script.v[at]);
    for (int32_t i = 0; i < script.tokens * kQueryHeads; ++i) {
      const int32_t t = i / kQueryHeads, head = i % kQueryHeads / kGroup;
      double total = 0;
      std::vector<double> sums(kDim);
      for (int32_t j = 0; j <= t; ++j) {
        if (t - j >= script.rule.window && !script.keeps(layer, head, j)) continue;
        const auto slot = static_cast<size_t>(j * kRow + head * kDim);
        double dot = 0;
        for (size_t d = 0; d < kDim; ++d) {
          dot += double{script.q[at][static_cast<size_t>(i) * kDim + d]} * double{k[slot + d]};
        }
        const double p = std::exp(dot * double{kParams.scale});
        total += p;
        for (size_t d = 0; d < kDim; ++d) sums[d] += p * double{v[slot + d]};
      }
      for (const double sum : sums) output[at].push_back(static_cast<float>(sum / total));
    }
  }
  return output;
}

class GatedSteps : public AttentionSuite {
 protected:
  // One sequence, alone, by slices of so many rows.
  Case::Output alone(const Script& script, DType type, int32_t rows) {
    const Script* scripts[] = {&script};
    return GatedRun(subject(), type, scripts).finish([&] { return rows; })[0];
  }
};

TEST_P(GatedSteps, RowsSeeWhatTheRuleSaysWhateverTheSlicesAndTheCompany) {
  for (const DType type : kTypes) {
    const Script few = write_script(1, 90, {.threshold = 0.3f, .window = 7, .sinks = 4});
    const Script none = write_script(2, 70, {.threshold = 9.0f, .window = 40});
    const Script most = write_script(3, 60, {.threshold = -1.5f, .window = 1});
    Script ungated = write_script(4, 80, {});
    ungated.gated = false;
    const Script* scripts[] = {&few, &ungated, &none, &most};
    std::vector<Case::Output> want;
    for (const Script* script : scripts) {
      SCOPED_TRACE(testing::Message() << dtype_name(type) << ", sequence " << want.size());
      want.push_back(alone(*script, type, script->tokens));
      EXPECT_LE(relative_error(want.back(), expected(*script, type)), bar(type));
      for (const int32_t rows : {1, 23}) {
        EXPECT_TRUE(same_bits(alone(*script, type, rows), want.back())) << rows << " rows a step";
      }
    }
    for (uint32_t seed = 0; seed < 3; ++seed) {
      std::mt19937 random(seed);
      const auto rows = [&] { return static_cast<int32_t>(random() % 4 == 0 ? random() % 40 : 1); };
      const auto together = GatedRun(subject(), type, scripts).finish(rows);
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_TRUE(same_bits(together[i], want[i])) << "sequence " << i << ", seed " << seed;
      }
    }
  }
}

TEST_P(GatedSteps, AGateThatKeepsEverythingChangesNoBit) {
  constexpr float kAlways = -std::numeric_limits<float>::infinity();
  for (const DType type : kTypes) {
    for (const int32_t window : {1, 64}) {
      Script script = write_script(5, 100, {.threshold = kAlways, .window = window});
      const Case::Output gated = alone(script, type, 33), by_token = alone(script, type, 1);
      script.gated = false;
      const Case::Output ungated = alone(script, type, 33);
      EXPECT_TRUE(same_bits(gated, ungated)) << dtype_name(type);
      EXPECT_TRUE(same_bits(by_token, ungated)) << dtype_name(type);
    }
  }
}

// Over several ranges of kept slots, and of dropped ones under the widest window.
TEST_P(GatedSteps, LongSequencesAreSplitBetweenThreads) {
  const Script keeps = write_script(6, 660, {.threshold = -1.5f, .window = 30});
  const Script drops = write_script(7, 620, {.threshold = 1.5f, .window = kFoldRange});
  const Script* scripts[] = {&keeps, &drops};
  const auto one = GatedRun(subject(), DType::kBF16, scripts).finish([] { return 97; });
  const auto team = another(5);
  const auto five = GatedRun(*team, DType::kBF16, scripts).finish([] { return 61; });
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(same_bits(one[i], five[i])) << "sequence " << i;
    EXPECT_LE(relative_error(one[i], expected(*scripts[i], DType::kBF16)), bar(DType::kBF16));
  }
}

INSTANTIATE_TEST_SUITE_P(, GatedSteps, testing::ValuesIn(kSubjects),
                         [](const auto& subject) { return test_name(subject.param); });

}  // namespace
}  // namespace coppice::ops
