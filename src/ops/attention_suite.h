// What:    how the suites of attention judge a case: against float64, and every plan of the same
//          rows, bit for bit, against each other.
// Owns:    the subject.
// Threads: one.
// Fails:   by GoogleTest assertions.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "ops/attention_suite_case.h"

namespace coppice::ops {

inline constexpr double kBar = 4e-3;  // of arithmetic that rounds queries and probabilities to bf16
inline constexpr double kExactBar = 2e-6;  // of arithmetic in f32
inline constexpr PlanStyle kTwoPhase{};
inline constexpr PlanStyle kPerList{.per_list_bounds = true};
inline constexpr PlanStyle kPerSequence{.per_sequence = true};
inline constexpr PlanStyle kCut{.cut_parts = true, .shuffle = true};
inline constexpr PlanStyle kCutPerSequence{
    .per_sequence = true, .cut_parts = true, .shuffle = true, .per_list_bounds = true};

// Whether a subject rounds queries and probabilities to bf16.
inline bool is_bf16_dot(const std::string& subject) {
  return subject == "kernel/emulated" || subject == "kernel/avx512bf16";
}

class AttentionSuite : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    subject_ = make_subject(GetParam(), 1);
    if (subject_ == nullptr)
      GTEST_SKIP() << GetParam() << ": this CPU does not have its instructions";
  }
  Subject& subject() { return *subject_; }
  std::unique_ptr<Subject> another(int threads) { return make_subject(GetParam(), threads); }

  // How near float64 the subject must be over what pages hold; "cpu" is the best kernel it finds.
  static double bar(DType pages) {
    const bool may_round = GetParam() == std::string("cpu") || is_bf16_dot(GetParam());
    return may_round && pages != DType::kF32 ? kBar : kExactBar;
  }

  // All plans of a case, bit-equal to the first, which is near float64.
  void judge(Case& c, const AttentionParams& params, int32_t kv_heads, int cuts = 2) {
    c.make_queries();
    const Case::Output want = c.expected(params);
    const Case::Output got = c.run(c.forest().plan(kv_heads, kTwoPhase, c.random()), params);
    EXPECT_LE(relative_error(got, want), bar(c.type()));
    std::vector<PlanStyle> styles{kPerList, kPerSequence};
    for (int i = 0; i < cuts; ++i) styles.insert(styles.end(), {kCut, kCutPerSequence});
    for (const PlanStyle& style : styles) {
      EXPECT_TRUE(same_bits(got, c.run(c.forest().plan(kv_heads, style, c.random()), params)))
          << "per sequence " << style.per_sequence << ", cut " << style.cut_parts;
    }
  }

 private:
  std::unique_ptr<Subject> subject_;
};

}  // namespace coppice::ops
