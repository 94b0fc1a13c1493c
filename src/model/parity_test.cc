// The forward pass against transformers, on every golden model and backend.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <set>

#include "model/test_golden.h"
#include "model/test_sequence.h"

namespace coppice::model::testing {
namespace {

struct Case {
  std::string backend;
  std::string model;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const char* backend : kBackends) {
    for (const char* model : kGoldenModels) cases.push_back({backend, model});
  }
  return cases;
}

class Parity : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(, Parity, ::testing::ValuesIn(all_cases()), [](const auto& test) {
  return test.param.backend + "_" + test.param.model;
});

std::vector<int32_t> all_rows(size_t rows) {
  std::vector<int32_t> out(rows);
  std::iota(out.begin(), out.end(), 0);
  return out;
}

// |ours - golden| over rows of V, and what the bars ask about it.
struct Errors {
  double max = 0, mean = 0;
  double range = 0, deviation = 0;  // of the golden's logits
};

Errors compare(std::span<const float> ours, std::span<const float> golden) {
  Errors e;
  const auto n = static_cast<double>(golden.size());
  double sum = 0, squares = 0;
  for (size_t i = 0; i < golden.size(); ++i) {
    const double error = std::abs(double{ours[i]} - double{golden[i]});
    e.max = std::max(e.max, std::isnan(error) ? INFINITY : error);
    e.mean += error / n;
    sum += double{golden[i]};
    squares += double{golden[i]} * double{golden[i]};
  }
  const auto [least, most] = std::minmax_element(golden.begin(), golden.end());
  e.range = double{*most} - double{*least};
  e.deviation = std::sqrt(squares / n - sum / n * (sum / n));
  return e;
}

std::string scientific(double x) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1e", x);
  return text.data();
}

// The prompt in one slice, then greedy decoding, one token a step.
TEST_P(Parity, F32LogitsAndGreedyTokens) {
  const auto [backend_name, name] = GetParam();
  const std::vector<int32_t> prompt = golden_ids(name, "prompt_ids");
  const std::vector<int32_t> expected = golden_ids(name, "greedy_ids");
  const std::vector<float> golden = golden_logits<float>(name, "golden.f32");
  ASSERT_EQ(expected.size(), 64u);
  ASSERT_GE(std::set<int32_t>(expected.begin(), expected.end()).size(), 16u);

  const auto backend = make_backend(backend_name, DType::kF32);
  const auto model = Model::load(*open_golden(name), *backend, {}).value();
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  ASSERT_EQ(golden.size(), (prompt.size() + expected.size() - 1) * vocab);
  TestSequence sequence(*backend, model->config(), DType::kF32, 256);

  TensorView logits = sequence.step(*model, prompt, all_rows(prompt.size()));
  std::vector<float> ours(logits.f32(), logits.f32() + logits.elements());
  std::vector<int32_t> answer = {argmax(std::span(ours).last(vocab))};
  while (answer.size() < expected.size()) {
    logits = sequence.step(*model, std::span(answer).last(1), all_rows(1));
    ours.insert(ours.end(), logits.f32(), logits.f32() + vocab);
    answer.push_back(argmax(std::span(ours).last(vocab)));
  }
  EXPECT_EQ(answer, expected);
  const Errors errors = compare(ours, golden);
  EXPECT_LE(errors.max, 1e-4 * errors.range);
  RecordProperty("max_error_of_range", scientific(errors.max / errors.range));
}

// bf16 weights and bf16 keys and values against transformers in float32 on the same weights.
TEST_P(Parity, Bf16TeacherForced) {
  const std::string name = GetParam().model + "-bf16";
  const std::vector<int32_t> ids = golden_ids(name, "ids");
  const std::vector<float> golden = golden_logits<f16>(name, "golden.f16");
  ASSERT_EQ(ids.size(), 256u);

  const auto backend = make_backend(GetParam().backend, DType::kBF16);
  const auto model =
      Model::load(*open_golden(name), *backend, {.max_rows = 256, .max_logit_rows = 256}).value();
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  ASSERT_EQ(golden.size(), ids.size() * vocab);
  TestSequence sequence(*backend, model->config(), DType::kBF16, 256);
  const TensorView logits = sequence.step(*model, ids, all_rows(ids.size()));
  const std::span<const float> ours(logits.f32(), golden.size());

  const Errors errors = compare(ours, golden);
  EXPECT_LE(errors.mean, 2e-2 * errors.deviation);
  int decided = 0;
  for (size_t at = 0; at < golden.size(); at += vocab) {
    std::vector<float> sorted(golden.begin() + static_cast<int64_t>(at),
                              golden.begin() + static_cast<int64_t>(at + vocab));
    const int32_t best = argmax(sorted);
    std::partial_sort(sorted.begin(), sorted.begin() + 2, sorted.end(), std::greater<>());
    if (double{sorted[0]} - double{sorted[1]} <= 4 * errors.max) continue;
    ++decided;
    EXPECT_EQ(argmax(ours.subspan(at, vocab)), best) << "at position " << at / vocab;
  }
  EXPECT_GE(decided, 205) << "of 256 positions, with a max error of " << errors.max;
  RecordProperty("mean_error_of_deviation", scientific(errors.mean / errors.deviation));
  RecordProperty("decided", decided);
}

// Logits of 256 random tokens, on cpu.
std::vector<float> logits_of(const Checkpoint& checkpoint, DType type,
                             const std::vector<int32_t>& ids) {
  const auto backend = make_backend("cpu", type);
  const auto model =
      Model::load(checkpoint, *backend, {.max_rows = 256, .max_logit_rows = 256}).value();
  TestSequence sequence(*backend, model->config(), type, 256);
  const TensorView logits = sequence.step(*model, ids, all_rows(ids.size()));
  return {logits.f32(), logits.f32() + logits.elements()};
}

struct GgufCase {
  const char* file;
  const char* directory;  // what it was made from
  DType type;
  double mean_bar;  // of the standard deviation; 0: every bit is equal
};

class GgufParity : public ::testing::TestWithParam<GgufCase> {};
INSTANTIATE_TEST_SUITE_P(, GgufParity,
                         ::testing::Values(GgufCase{"llama-f32", "llama", DType::kF32, 0},
                                           GgufCase{"llama3-bf16", "llama3-bf16", DType::kBF16,
                                                    1e-4},
                                           GgufCase{"qwen2-f16", "qwen2", DType::kF32, 2e-3},
                                           GgufCase{"llama-q8_0", "llama", DType::kF32, 3e-2},
                                           GgufCase{"qwen3-q8_0", "qwen3", DType::kF32, 3e-2}),
                         [](const auto& test) {
                           std::string name = test.param.file;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(GgufParity, AnswersLikeTheDirectory) {
  const GgufCase& test = GetParam();
  const std::vector<int32_t> ids = golden_ids("llama-bf16", "ids");
  const std::string path = std::string(COPPICE_TEST_DATA) + "/gguf/" + test.file + ".gguf";
  const std::vector<float> ours = logits_of(*Checkpoint::open(path).value(), test.type, ids);
  const std::vector<float> directory = logits_of(*open_golden(test.directory), test.type, ids);
  ASSERT_EQ(ours.size(), directory.size());
  if (test.mean_bar == 0) {
    EXPECT_EQ(ours, directory);
    return;
  }
  const Errors errors = compare(ours, directory);
  EXPECT_LE(errors.mean, test.mean_bar * errors.deviation);
  EXPECT_GT(errors.mean, 0) << "what the file rounds must show";
  RecordProperty("mean_error_of_deviation", scientific(errors.mean / errors.deviation));
}

}  // namespace
}  // namespace coppice::model::testing
