// What the model promises beside parity: slices change nothing, rows are counted where they are
// embedded, and a checkpoint that does not fit is refused by name.
#include "model/model.h"

#include <gtest/gtest.h>

#include <algorithm>

#include <numeric>
#include <random>

#include "model/test_golden.h"
#include "model/test_sequence.h"

namespace coppice::model::testing {
namespace {

// A golden model's checkpoint with one thing changed.
class ChangedCheckpoint : public Checkpoint {
 public:
  explicit ChangedCheckpoint(const std::string& model) : base_(open_golden(model)) {
    config_ = base_->config();
  }
  const ModelConfig& config() const override { return config_; }
  Expected<TensorData> tensor(std::string_view name, const Shape& shape) const override {
    return base_->tensor(name, shape);
  }
  Expected<Shape> shape(std::string_view name) const override { return base_->shape(name); }
  Expected<TensorForm> check(std::string_view name, const Shape& shape) const override {
    return base_->check(name, shape);
  }
  bool has(std::string_view name) const override { return base_->has(name); }
  std::vector<std::string> names() const override {
    std::vector<std::string> all = base_->names();
    if (!extra_.empty()) all.push_back(extra_);
    return all;
  }
  const std::string& path() const override { return base_->path(); }
  std::string tokenizer_path() const override { return base_->tokenizer_path(); }
  Expected<std::string> tokenizer_json() const override { return base_->tokenizer_json(); }

  ModelConfig config_;
  std::string extra_;  // a tensor more in names()

 private:
  std::unique_ptr<Checkpoint> base_;
};

std::vector<int32_t> random_tokens(size_t count, int32_t vocab) {
  std::mt19937 rng(5);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % static_cast<uint32_t>(vocab));
  return tokens;
}

std::vector<int32_t> random_slices(int32_t total, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> slices;
  for (int32_t left = total; left > 0; left -= slices.back()) {
    slices.push_back(std::min(left, static_cast<int32_t>(1 + rng() % 70)));
  }
  return slices;
}

class ModelOnBackend : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, ModelOnBackend, ::testing::ValuesIn(kBackends),
                         [](const auto& test) { return std::string(test.param); });

// One slice on one thread against single tokens and random slices on two.
void expect_slices_change_no_bit(const std::string& backend_name, const std::string& name,
                                 DType type) {
  constexpr int32_t kTokens = 200;
  const ModelOptions options{.max_rows = kTokens, .max_logit_rows = kTokens};
  const auto checkpoint = open_golden(name);
  const auto one_thread = make_backend(backend_name, type);
  const auto two_threads = make_backend(backend_name, type, 2);
  const auto model = Model::load(*checkpoint, *one_thread, options).value();
  const auto other = Model::load(*checkpoint, *two_threads, options).value();
  const std::vector<int32_t> tokens = random_tokens(kTokens, model->config().vocab_size);
  const std::vector<float> whole = logits_in_slices(*one_thread, *model, type, tokens, {kTokens});
  const std::vector<int32_t> singles(kTokens, 1);
  EXPECT_EQ(logits_in_slices(*two_threads, *other, type, tokens, singles), whole);
  for (uint32_t seed = 0; seed < 2; ++seed) {
    const std::vector<int32_t> slices = random_slices(kTokens, seed);
    EXPECT_EQ(logits_in_slices(*two_threads, *other, type, tokens, slices), whole) << seed;
  }
}

TEST_P(ModelOnBackend, SlicesAndThreadsChangeNoBit) {
  for (const char* name : kGoldenModels) {
    for (const DType type : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::string(name) + " in " + std::string(dtype_name(type)));
      expect_slices_change_no_bit(GetParam(), name, type);
    }
  }
}

TEST_P(ModelOnBackend, LogitsOnlyOfTheRowsAsked) {
  const auto backend = make_backend(GetParam(), DType::kF32);
  const auto model = Model::load(*open_golden("qwen3"), *backend, {}).value();
  const std::vector<int32_t> tokens = random_tokens(40, model->config().vocab_size);
  const auto ask = [&](const std::vector<int32_t>& rows) {
    TestSequence sequence(*backend, model->config(), DType::kF32, 64);
    const TensorView logits = sequence.step(*model, tokens, rows);
    EXPECT_EQ(logits.shape(), (Shape{static_cast<int64_t>(rows.size()), 320}));
    std::vector<std::vector<float>> out;
    for (size_t r = 0; r < rows.size(); ++r) {
      out.push_back(row_of(logits, static_cast<int64_t>(r)));
    }
    return out;
  };
  std::vector<int32_t> every(40);
  std::iota(every.begin(), every.end(), 0);
  const auto all = ask(every);
  EXPECT_EQ(ask({39, 0, 17}), (std::vector{all[39], all[0], all[17]}));
  EXPECT_TRUE(ask({}).empty());
}

// A slice that asks for no logits still leaves its keys and values, of every layer.
TEST_P(ModelOnBackend, SliceWithoutLogitsWritesItsKeys) {
  const auto backend = make_backend(GetParam(), DType::kF32);
  const auto model = Model::load(*open_golden("llama"), *backend, {}).value();
  const std::vector<int32_t> tokens = random_tokens(40, model->config().vocab_size);
  const std::span<const int32_t> all(tokens);
  const std::vector<int32_t> last = {7};
  TestSequence sliced(*backend, model->config(), DType::kF32, 64);
  sliced.step(*model, all.first(32), {});
  const std::vector<float> after = row_of(sliced.step(*model, all.last(8), last), 0);
  TestSequence whole(*backend, model->config(), DType::kF32, 64);
  const std::vector<int32_t> row = {39};
  EXPECT_EQ(after, row_of(whole.step(*model, all, row), 0));
}

TEST_P(ModelOnBackend, EmptyStep) {
  const auto backend = make_backend(GetParam(), DType::kF32);
  const auto model = Model::load(*open_golden("llama"), *backend, {}).value();
  TestSequence sequence(*backend, model->config(), DType::kF32, 64);
  EXPECT_EQ(sequence.step(*model, {}, {}).shape(), (Shape{0, 320}));
}

TEST(Model, CountsRowsAtTheEmbedding) {
  const auto backend = make_backend("ref", DType::kF32);
  const auto model = Model::load(*open_golden("llama"), *backend, {}).value();
  TestSequence sequence(*backend, model->config(), DType::kF32, 64);
  const std::vector<int32_t> tokens = {5, 6, 7}, positions = {0, 1, 2}, owners = {2, 0, 2};
  std::vector<int64_t> evaluated = {10, 0, 0};
  const ops::AttentionPlan plan = sequence.make_plan(3);
  model->forward({.tokens = tokens,
                  .positions = positions,
                  .owners = owners,
                  .evaluated = evaluated,
                  .logit_rows = {},
                  .plan = plan,
                  .arena = sequence.arena()});
  EXPECT_EQ(evaluated, (std::vector<int64_t>{11, 0, 2}));
}

TEST(Model, ReportsItsBytesAndProgress) {
  const auto backend = make_backend("ref", DType::kF32);
  std::vector<int64_t> seen;
  int64_t whole = 0;
  const auto progress = [&](int64_t done, int64_t total) {
    seen.push_back(done);
    whole = total;
  };
  const ModelOptions options{.max_rows = 10, .max_logit_rows = 3};
  const auto model = Model::load(*open_golden("llama"), *backend, options, progress).value();
  // embed, 2 layers x (2 norms, q, k, v, o, gate, up, down), norm, lm_head.
  ASSERT_EQ(seen.size(), 1u + 2 * 9 + 2);
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), whole);
  const int64_t elements =
      2 * 320 * 64 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 128 * 64);
  EXPECT_EQ(whole, 4 * elements);
  EXPECT_EQ(model->weight_bytes(), 4 * elements);
  // x, h; q, a; k, v; gate, up; cos, sin; logits twice; pieces start on 64 bytes.
  const int64_t rows = 2 * 64 + 2 * 64 + 2 * 32 + 2 * 128 + 2 * 8;
  EXPECT_EQ(model->activation_bytes(), 4 * (10 * rows + 2 * 3 * 320));
}

TEST(Model, TiedWeightsAreHeldOnce) {
  const auto backend = make_backend("ref", DType::kF32);
  const auto model = Model::load(*open_golden("llama3"), *backend, {}).value();
  const int64_t elements = 320 * 64 + 64 + 2 * (2 * 64 + 2 * 128 * 64 + 2 * 64 * 64 + 3 * 128 * 64);
  EXPECT_EQ(model->weight_bytes(), 4 * elements);
}

Error load_error(const Checkpoint& checkpoint, const ModelOptions& options = {}) {
  const auto backend = make_backend("ref", DType::kF32);
  auto model = Model::load(checkpoint, *backend, options);
  EXPECT_FALSE(model.has_value());
  return model ? Error{} : model.error();
}

void expect_names(const Error& error, ErrorCode code, std::initializer_list<const char*> parts) {
  EXPECT_EQ(error.code, code) << error.message;
  for (const char* part : parts) {
    EXPECT_NE(error.message.find(part), std::string::npos) << error.message << "\nlacks " << part;
  }
}

TEST(Model, NamesAMissingTensor) {
  ChangedCheckpoint checkpoint("llama3");
  checkpoint.config_.tie_word_embeddings = false;
  ModelConfig& config = checkpoint.config_;
  expect_names(load_error(checkpoint), ErrorCode::kNotFound, {"lm_head.weight"});
  config.tie_word_embeddings = true;
  config.num_hidden_layers = 3;
  expect_names(load_error(checkpoint), ErrorCode::kNotFound,
               {"model.layers.2.input_layernorm.weight"});
  config.num_hidden_layers = 2;
  config.qk_norm = true;
  expect_names(load_error(checkpoint), ErrorCode::kNotFound,
               {"model.layers.0.self_attn.q_norm.weight"});
}

TEST(Model, NamesAMisshapenTensorAndBothShapes) {
  ChangedCheckpoint checkpoint("llama");
  checkpoint.config_.intermediate_size = 96;
  expect_names(load_error(checkpoint), ErrorCode::kCorrupt,
               {"model.layers.0.mlp.gate_proj.weight", "[128, 64]", "[96, 64]"});
}

TEST(Model, RefusesTensorsItWouldNotUse) {
  ChangedCheckpoint fewer("llama");
  fewer.config_.num_hidden_layers = 1;
  expect_names(load_error(fewer), ErrorCode::kUnsupported, {"model.layers.1."});
  ChangedCheckpoint biased("qwen2");
  biased.config_.attention_bias = false;
  expect_names(load_error(biased), ErrorCode::kUnsupported, {"self_attn.k_proj.bias"});
}

// What is computed from the config may lie in the file, and a tied model's second copy.
TEST(Model, IgnoresWhatItComputesItself) {
  const auto backend = make_backend("ref", DType::kF32);
  for (const char* extra :
       {"lm_head.weight", "model.layers.0.self_attn.rotary_emb.inv_freq", "rope_freqs.weight"}) {
    ChangedCheckpoint checkpoint("llama3");
    checkpoint.extra_ = extra;
    EXPECT_TRUE(Model::load(checkpoint, *backend, {}).has_value()) << extra;
  }
}

TEST(Model, RefusesWhatTheLimitCannotHold) {
  const auto backend = make_backend("ref", DType::kF32);
  const auto checkpoint = open_golden("llama");
  const auto model = Model::load(*checkpoint, *backend, {}).value();
  const int64_t needed = model->weight_bytes() + model->activation_bytes();
  EXPECT_TRUE(Model::load(*checkpoint, *backend, {.memory_limit = needed}).has_value());
  const std::string allowed = std::to_string(needed - 1);
  expect_names(load_error(*checkpoint, {.memory_limit = needed - 1}), ErrorCode::kTooLarge,
               {std::to_string(model->weight_bytes()).c_str(),
                std::to_string(model->activation_bytes()).c_str(), allowed.c_str()});
  expect_names(load_error(*checkpoint, {.memory_limit = 1000}), ErrorCode::kTooLarge,
               {"--memory 1000"});
}

TEST(Model, RefusesRoomForNothing) {
  const auto checkpoint = open_golden("llama");
  expect_names(load_error(*checkpoint, {.max_rows = 0}), ErrorCode::kInvalidArgument, {"0"});
  expect_names(load_error(*checkpoint, {.max_logit_rows = -2}), ErrorCode::kInvalidArgument,
               {"-2"});
}

}  // namespace
}  // namespace coppice::model::testing
