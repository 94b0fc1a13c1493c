// What a learned gate decides, held against its formula, and what of it may depend on what; which
// gates are refused.
#include "model/gate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "model/gated_test_sequence.h"
#include "model/layers.h"
#include "model/test_files.h"
#include "model/test_gate.h"
#include "model/test_golden.h"

namespace coppice::model::testing {
namespace {

constexpr int32_t kTokens = 150;

// A golden model, and a gate file for it.
class GateFixture : public ::testing::Test {
 protected:
  std::string write(const GateHeader& header) const {
    const std::string path = directory_.path() + "/gate.safetensors";
    EXPECT_TRUE(write_gate_file(path, header, random_gate(header, 3)).has_value());
    return path;
  }
  std::unique_ptr<Gate> open(const GateHeader& header) const {
    return Gate::open(write(header), *base_, *backend_).value();
  }
  std::unique_ptr<Gate> open_causal(int32_t reach) const {
    GateHeader header = gate_header(GateKind::kCausal, *base_);
    header.reach = reach;
    return open(header);
  }

  TemporaryDirectory directory_;
  std::unique_ptr<Checkpoint> base_ = open_golden("llama");
  std::unique_ptr<ops::Backend> backend_ = make_backend("ref", DType::kF32);
};

// What a gate reads of a sequence in every layer, made up.
struct Columns {
  Columns(const GateNeeds& needs, int32_t layers) : width(static_cast<size_t>(needs.columns)) {
    std::mt19937 rng(11);
    std::normal_distribution<float> normal;
    values.resize(static_cast<size_t>(layers * kTokens) * width);
    for (float& value : values) value = normal(rng);
  }
  float* row(int32_t layer, int32_t token) {
    return values.data() + static_cast<size_t>(layer * kTokens + token) * width;
  }
  size_t width;
  std::vector<float> values;  // [L][kTokens][C]
};

struct Decided {
  std::vector<float> logits;  // [L][kTokens][Hkv]
  std::vector<float> memory;
  std::vector<uint8_t> keep;
  bool operator==(const Decided&) const = default;
};

Decided decide(Gate& gate, const ModelConfig& config, ops::Backend& backend, Columns columns,
               const std::vector<int32_t>& slices) {
  GatedTestCache cache(backend, config, DType::kF32, kTokens, &gate);
  GatedTestSequence& sequence = cache.begin(gate.rule(GateTier::kMild));
  const int32_t heads = config.num_key_value_heads;
  const auto angles = static_cast<int64_t>(gate.rope_inv_freq().size());
  Decided decided;
  decided.logits.resize(static_cast<size_t>(config.num_hidden_layers * kTokens * heads));
  const std::vector<int32_t> tokens(kTokens, 1);
  for (const int32_t size : slices) {
    const int32_t from = sequence.length();
    GatedTestCache::Step step(cache,
                              {{sequence, std::span(tokens).first(static_cast<size_t>(size))}});
    std::vector<int32_t> positions(static_cast<size_t>(size));
    std::iota(positions.begin(), positions.end(), from);
    std::vector<float> cos(static_cast<size_t>(size * angles)), sin(cos.size());
    GateInput input{.tokens = step.tokens()};
    if (angles > 0) {
      input.cos = {cos.data(), DType::kF32, {size, angles}};
      input.sin = {sin.data(), DType::kF32, {size, angles}};
      rotary_angles(positions, gate.rope_inv_freq(), input.cos, input.sin);
    }
    for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
      input.columns = {
          columns.row(layer, from), DType::kF32, {size, static_cast<int64_t>(columns.width)}};
      input.logits = {
          decided.logits.data() + (layer * kTokens + from) * heads, DType::kF32, {size, heads}};
      gate.decide(layer, input, step.gated());
    }
    sequence.advance(size);
  }
  EXPECT_EQ(sequence.length(), kTokens);
  decided.memory = sequence.memory();
  decided.keep = sequence.keep();
  return decided;
}

std::vector<int32_t> random_slices(uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<int32_t> slices;
  for (int32_t left = kTokens; left > 0; left -= slices.back()) {
    slices.push_back(std::min(left, static_cast<int32_t>(1 + rng() % 40)));
  }
  return slices;
}

// z of one row in double: columns are [Ws u | q' | k' | v'].
double naive_logit(const GateFile& file, Columns& columns, int32_t layer, int32_t head, int32_t t) {
  const GateHeader& header = file.header();
  const auto at = [&](const char* name) {
    const std::string whole = "layers." + std::to_string(layer) + "." + name;
    for (const GateTensor& tensor : gate_tensors(header)) {
      if (tensor.name == whole) return file.tensor(tensor).value();
    }
    CHECK(false);
  };
  const int32_t heads = header.num_key_value_heads, width = header.width(), dim = header.head_dim;
  double z = double{columns.row(layer, t)[head]} + double{at("b").view.f32()[head]};
  if (header.kind == GateKind::kPoint) return z;
  // Rotated element d of head h of the piece at `offset`.
  const auto turned = [&](int32_t token, int32_t offset, int32_t h, int32_t d) {
    const float* x = columns.row(layer, token) + heads + offset + h * dim;
    const int32_t half = dim / 2, i = d % half;
    const double frequency = std::pow(header.rope_theta, -2.0 * i / dim);
    const double angle = token * frequency;
    return d < half ? double{x[i]} * std::cos(angle) - double{x[half + i]} * std::sin(angle)
                    : double{x[half + i]} * std::cos(angle) + double{x[i]} * std::sin(angle);
  };
  const TensorData wo = at("wo");
  for (int32_t h = 0; h < header.heads; ++h) {
    double sum = 0;
    std::vector<double> a(static_cast<size_t>(dim));
    for (int32_t j = std::max(0, t - header.reach + 1); j <= t; ++j) {
      double score = 0;
      for (int32_t d = 0; d < dim; ++d) score += turned(t, 0, h, d) * turned(j, width, h, d);
      const double share = std::exp(score / std::sqrt(static_cast<double>(dim)));
      sum += share;
      for (int32_t d = 0; d < dim; ++d) {
        const float* value = columns.row(layer, j) + heads + 2 * width;
        a[static_cast<size_t>(d)] += share * double{value[h * dim + d]};
      }
    }
    for (int32_t d = 0; d < dim; ++d) {
      z += double{wo.view.f32()[head * width + h * dim + d]} * a[static_cast<size_t>(d)] / sum;
    }
  }
  return z;
}

void expect_formula(const std::string& path, Gate& gate, const ModelConfig& config,
                    ops::Backend& backend) {
  const GateFile file = GateFile::open(path).value();
  Columns columns(gate.needs(), config.num_hidden_layers);
  const Decided decided = decide(gate, config, backend, columns, {kTokens});
  const int32_t heads = config.num_key_value_heads;
  int32_t dropped = 0;
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (int32_t t = 0; t < kTokens; ++t) {
      for (int32_t head = 0; head < heads; ++head) {
        const int32_t list = layer * heads + head;
        const float z = decided.logits[static_cast<size_t>((layer * kTokens + t) * heads + head)];
        ASSERT_NEAR(double{z}, naive_logit(file, columns, layer, head, t), 2e-5) << t;
        const uint8_t keep = decided.keep[static_cast<size_t>(list * kTokens + t)];
        ASSERT_EQ(keep != ops::kDroppedByte,
                  t < file.header().sinks || z >= file.header().tier(GateTier::kMild).threshold);
        dropped += keep == ops::kDroppedByte ? 1 : 0;
      }
    }
  }
  const int32_t all = config.num_hidden_layers * heads * kTokens;
  EXPECT_GT(dropped, all / 5);
  EXPECT_LT(dropped, all * 4 / 5);
}

TEST_F(GateFixture, LogitsAreThoseOfTheFormula) {
  const auto point = open(gate_header(GateKind::kPoint, *base_));
  expect_formula(directory_.path() + "/gate.safetensors", *point, base_->config(), *backend_);
  for (const int32_t reach : {1, 2, 7, 64}) {
    SCOPED_TRACE(reach);
    const auto causal = open_causal(reach);
    expect_formula(directory_.path() + "/gate.safetensors", *causal, base_->config(), *backend_);
  }
}

TEST_F(GateFixture, SlicesChangeNoBit) {
  for (const int32_t reach : {0, 1, 2, 7, 64}) {
    SCOPED_TRACE(reach);
    const auto gate = reach == 0 ? open(gate_header(GateKind::kPoint, *base_)) : open_causal(reach);
    const Columns columns(gate->needs(), base_->config().num_hidden_layers);
    const auto in = [&](const std::vector<int32_t>& slices) {
      return decide(*gate, base_->config(), *backend_, columns, slices);
    };
    const Decided whole = in({kTokens});
    EXPECT_EQ(in(std::vector<int32_t>(kTokens, 1)), whole);
    for (uint32_t seed = 0; seed < 4; ++seed) EXPECT_EQ(in(random_slices(seed)), whole) << seed;
  }
}

TEST_F(GateFixture, DecisionsDependOnThePastAndNoFurtherThanTheirReach) {
  const int32_t heads = base_->config().num_key_value_heads;
  for (const int32_t reach : {0, 1, 7, 64}) {
    const auto gate = reach == 0 ? open(gate_header(GateKind::kPoint, *base_)) : open_causal(reach);
    const Columns columns(gate->needs(), base_->config().num_hidden_layers);
    const Decided before = decide(*gate, base_->config(), *backend_, columns, {kTokens});
    for (const int32_t k : {0, 1, 40, kTokens - 1}) {
      Columns changed = columns;
      for (size_t c = 0; c < changed.width; ++c) changed.row(0, k)[c] += 0.5f;
      const Decided after = decide(*gate, base_->config(), *backend_, changed, {kTokens});
      for (int32_t t = 0; t < kTokens; ++t) {
        const bool reached = t >= k && t < k + std::max(1, reach);
        for (int32_t head = 0; head < heads; ++head) {
          const auto at = static_cast<size_t>(t * heads + head);
          EXPECT_EQ(before.logits[at] != after.logits[at], reached)
              << reach << " " << k << " " << t;
        }
      }
    }
  }
}

// The rows of other sequences in a step, of whatever tier, change nothing either.
TEST_F(GateFixture, RowsBesideChangeNoBit) {
  const auto gate = open_causal(7);
  const ModelConfig& config = base_->config();
  const Columns columns(gate->needs(), config.num_hidden_layers);
  const Decided alone = decide(*gate, config, *backend_, columns, {kTokens});
  GatedTestCache cache(*backend_, config, DType::kF32, kTokens, gate.get(), 2);
  GatedTestSequence& other = cache.begin(gate->rule(GateTier::kHard));
  GatedTestSequence& own = cache.begin(gate->rule(GateTier::kMild));
  const std::vector<int32_t> tokens(kTokens, 1);
  GatedTestCache::Step step(cache, {{other, std::span(tokens).first(9)}, {own, tokens}});
  constexpr int32_t kRows = kTokens + 9;
  std::vector<int32_t> positions(9);
  std::iota(positions.begin(), positions.end(), 0);
  positions.resize(kRows);
  std::iota(positions.begin() + 9, positions.end(), 0);
  const auto angles = static_cast<int64_t>(gate->rope_inv_freq().size());
  std::vector<float> cos(static_cast<size_t>(kRows * angles)), sin(cos.size());
  std::vector<float> logits(static_cast<size_t>(kRows * config.num_key_value_heads));
  GateInput input{.tokens = step.tokens()};
  input.cos = {cos.data(), DType::kF32, {kRows, angles}};
  input.sin = {sin.data(), DType::kF32, {kRows, angles}};
  rotary_angles(positions, gate->rope_inv_freq(), input.cos, input.sin);
  input.logits = {logits.data(), DType::kF32, {kRows, config.num_key_value_heads}};
  for (int32_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    Columns mine = columns;
    std::vector<float> rows(9 * columns.width, 0.25f);
    rows.insert(rows.end(), mine.row(layer, 0), mine.row(layer, 0) + kTokens * columns.width);
    input.columns = {rows.data(), DType::kF32, {kRows, static_cast<int64_t>(columns.width)}};
    gate->decide(layer, input, step.gated());
  }
  EXPECT_EQ(own.keep(), alone.keep);
  EXPECT_EQ(own.memory(), alone.memory);
}

// A number that is none keeps its token, and those that reach it: nothing is lost by it.
TEST_F(GateFixture, NanKeeps) {
  const auto gate = open_causal(7);
  Columns columns(gate->needs(), base_->config().num_hidden_layers);
  std::fill_n(columns.row(0, 50), columns.width, NAN);
  const Decided decided = decide(*gate, base_->config(), *backend_, columns, {kTokens});
  for (size_t t = 50; t < 57; ++t) EXPECT_NE(decided.keep[t], ops::kDroppedByte) << t;
}

TEST_F(GateFixture, TellsWhatItNeedsAndHolds) {
  const GateHeader header = gate_header(GateKind::kCausal, *base_);
  const auto causal = open(header);
  EXPECT_EQ(causal->needs(), (GateNeeds{.columns = 2 + 3 * 20, .angles = 5}));
  EXPECT_EQ(causal->memory_floats(), 6 * 2 * 20);
  EXPECT_EQ(causal->weight_bytes(), 2 * 4 * (2 + 3 * 20) * 64);
  EXPECT_EQ(causal->rule(GateTier::kNormal), (ops::GateRule{0.7f, 5, 2}));
  EXPECT_EQ(causal->rule(GateTier::kHard), (ops::GateRule{1.2f, 5, 2}));
  EXPECT_EQ(*causal->header(), header);
  EXPECT_TRUE(contains(causal->describe(), "causal gate over 7 tokens, 2 heads of 10"));
  EXPECT_EQ(open_causal(1)->memory_floats(), 0);
  GateHeader point_header = gate_header(GateKind::kPoint, *base_);
  point_header.decode_gate = false;
  const auto point = open(point_header);
  EXPECT_EQ(point->needs(), (GateNeeds{.columns = 2}));
  EXPECT_EQ(point->memory_floats(), 0);
  EXPECT_FALSE(point->decides_generated());
  EXPECT_NE(point->hash(), causal->hash());
}

TEST_F(GateFixture, KindsThatLookAheadAreRefusedByWhyTheyCannotBeServed) {
  for (const GateKind kind : {GateKind::kGlobal, GateKind::kBlock}) {
    const auto gate = Gate::open(write(gate_header(kind, *base_)), *base_, *backend_);
    ASSERT_FALSE(gate.has_value());
    EXPECT_EQ(gate.error().code, ErrorCode::kUnsupported);
    EXPECT_TRUE(contains(gate.error().message, std::string(gate_kind_name(kind)) + " gate"));
    EXPECT_TRUE(contains(gate.error().message, "depends on tokens that follow"));
    EXPECT_TRUE(contains(gate.error().message, "point and causal"));
  }
}

TEST_F(GateFixture, AnotherShapeIsRefusedEvenByForce) {
  const auto refused = [&](const GateHeader& header, const char* part) {
    const auto gate = Gate::open(write(header), *base_, *backend_, {.any_base = true});
    EXPECT_TRUE(contains(message_of(gate), part));
  };
  GateHeader header = gate_header(GateKind::kPoint, *base_);
  header.hidden_size = 48;
  refused(header, "hidden_size 48, but");
  header = gate_header(GateKind::kPoint, *base_);
  header.num_hidden_layers = 3;
  refused(header, "num_hidden_layers 3, but");
  header = gate_header(GateKind::kPoint, *base_);
  header.num_key_value_heads = 1;
  refused(header, "num_key_value_heads 1, but");
}

TEST_F(GateFixture, AnotherBaseIsRefusedNamingBothHashesUnlessForced) {
  GateHeader header = gate_header(GateKind::kPoint, *base_);
  const std::string own = header.base;
  header.base = "0123456789abcdef";
  const std::string path = write(header);
  const auto gate = Gate::open(path, *base_, *backend_);
  ASSERT_FALSE(gate.has_value());
  EXPECT_EQ(gate.error().code, ErrorCode::kCorrupt);
  for (const std::string& part : {path, own, header.base, base_->path()}) {
    EXPECT_TRUE(contains(gate.error().message, part));
  }
  EXPECT_TRUE(Gate::open(path, *base_, *backend_, {.any_base = true}).has_value());
}

TEST_F(GateFixture, AFileThatIsNoneIsRefused) {
  EXPECT_EQ(Gate::open("/nowhere.gate", *base_, *backend_).error().code, ErrorCode::kNotFound);
  const auto model = Gate::open(golden_path("llama") + "/model.safetensors", *base_, *backend_);
  EXPECT_TRUE(contains(message_of(model), "is not a gate file"));
}

}  // namespace
}  // namespace coppice::model::testing
