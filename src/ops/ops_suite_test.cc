// One suite for every backend: each dense method against its formula in double, at lengths around
// every vector width, and promise 3: a row's bits depend on that row alone.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "ops/backends.h"

namespace coppice::ops {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();
constexpr int64_t kGuard = 64;  // floats behind every array: poison that nobody reads or writes

const std::vector<int64_t> kRowCounts{0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 64, 65, 97, 512};
const std::vector<int64_t> kWidths{1,  2,  7,  8,  9,   15,  16,  17,  31,  32,
                                   33, 63, 64, 65, 100, 127, 128, 129, 256, 300};

struct Setup {
  std::string backend, isa;
  DType weights;
  int threads;
};

void PrintTo(const Setup& s, std::ostream* out) { *out << s.backend << " " << s.isa; }

std::string setup_name(const testing::TestParamInfo<Setup>& info) {
  const Setup& s = info.param;
  return s.backend + "_" + s.isa + "_" + std::string(dtype_name(s.weights)) + "_" +
         std::to_string(s.threads);
}

std::unique_ptr<Backend> make(const Setup& s) {
  auto backend = make_backend(s.backend, {s.threads, s.isa, s.weights});
  EXPECT_TRUE(backend) << backend.error().message;
  return std::move(*backend);
}

constexpr const char* kInstructionSets[] = {"avx2", "avx512", "avx512bf16"};

// Every backend of this build on every instruction set of this machine.
std::vector<Setup> all_setups() {
  std::vector<Setup> setups;
  for (const DType weights : {DType::kF32, DType::kBF16}) {
    setups.push_back({"ref", "auto", weights, 1});
    for (const std::string isa : kInstructionSets) {
      if (!make_backend("cpu", {1, isa, weights})) continue;
      for (const int threads : {1, 2}) setups.push_back({"cpu", isa, weights, threads});
    }
  }
  return setups;
}

// f32 values with poison behind them.
class Array {
 public:
  explicit Array(Shape shape)
      : shape_(shape), values_(static_cast<size_t>(shape.elements() + kGuard), kPoison) {}

  // Uniform in (-1, 1), representable in bf16 so that no backend's rounding of inputs shows.
  static Array random(Shape shape, uint32_t seed) {
    Array array(shape);
    std::mt19937 engine(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < shape.elements(); ++i) array[i] = to_float(to_bf16(uniform(engine)));
    return array;
  }

  float& operator[](int64_t i) { return values_[static_cast<size_t>(i)]; }
  float operator[](int64_t i) const { return values_[static_cast<size_t>(i)]; }
  TensorView view() const { return {values_.data(), DType::kF32, shape_}; }
  TensorView rows(int64_t begin, int64_t end) const { return view().rows(begin, end); }
  int64_t size() const { return shape_.elements(); }
  bool guard_is_whole() const {
    for (int64_t i = size(); i < size() + kGuard; ++i) {
      if (!std::isnan((*this)[i])) return false;
    }
    return true;
  }
  bool same_bits(const Array& other) const { return shape_ == other.shape_ && begins(other); }
  // True when the other array begins with these bits.
  bool begins(const Array& other) const {
    return size() <= other.size() && std::memcmp(values_.data(), other.values_.data(),
                                                 static_cast<size_t>(size()) * sizeof(float)) == 0;
  }

 private:
  Shape shape_;
  std::vector<float> values_;
};

using Formula = std::function<double(int64_t row, int64_t column)>;

// Every element of out [R, W] within `tolerance(row, column)` of the formula; stops at the first.
void expect_near(const Array& out, int64_t width, const Formula& formula,
                 const Formula& tolerance) {
  EXPECT_TRUE(out.guard_is_whole());
  for (int64_t i = 0; i < out.size(); ++i) {
    const int64_t r = i / width, c = i % width;
    ASSERT_NEAR(out[i], formula(r, c), tolerance(r, c)) << "row " << r << " column " << c;
  }
}

Formula relative(const Formula& formula, double share) {
  return [=](int64_t r, int64_t c) { return share * std::abs(formula(r, c)) + 1e-7; };
}

// Runs `op` on all rows at once, then on each row alone, and compares bits.
void expect_rows_alone(int64_t rows, int64_t width,
                       const std::function<void(int64_t begin, int64_t end, TensorView out)>& op) {
  Array together({rows, width}), alone({rows, width});
  op(0, rows, together.view());
  for (int64_t r = 0; r < rows; ++r) op(r, r + 1, alone.rows(r, r + 1));
  EXPECT_TRUE(together.same_bits(alone)) << rows << " rows of " << width;
}

class OpsSuite : public testing::TestWithParam<Setup> {
 protected:
  std::unique_ptr<Weight> load(const TensorView& w) {
    auto weight = backend_->load_weight(w);
    EXPECT_TRUE(weight) << weight.error().message;
    return std::move(*weight);
  }
  std::unique_ptr<Backend> backend_ = make(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Backends, OpsSuite, testing::ValuesIn(all_setups()), setup_name);

TEST(Backends, EveryInstructionSetRan) {
  std::string refusals;
  for (const char* isa : kInstructionSets) {
    const auto backend = make_backend("cpu", {1, isa, DType::kBF16});
    if (!backend) refusals += std::string(isa) + " did not: " + backend.error().message + "; ";
  }
  if (!refusals.empty()) GTEST_SKIP() << refusals;
}

// --- matmul

struct Product {
  int64_t rows, inputs, outputs;
  bool biased;
};

class Matmul : public OpsSuite {
 protected:
  void check(const Product& p) {
    SCOPED_TRACE(testing::Message() << p.rows << " x " << p.inputs << " x " << p.outputs
                                    << (p.biased ? " + bias" : ""));
    const Array x = Array::random({p.rows, p.inputs}, 1);
    const Array w = Array::random({p.outputs, p.inputs}, 2);
    const Array bias = Array::random({p.outputs}, 3);
    Array out({p.rows, p.outputs});
    const auto weight = load(w.view());
    EXPECT_EQ(weight->rows(), p.outputs);
    EXPECT_EQ(weight->cols(), p.inputs);
    EXPECT_GE(weight->bytes(), p.outputs * p.inputs * 2);
    backend_->matmul(x.view(), *weight, p.biased ? bias.view() : TensorView(), out.view());
    const auto sum = [&](bool magnitudes) {
      return [&, magnitudes](int64_t t, int64_t n) {
        double total = p.biased ? (magnitudes ? std::abs(double{bias[n]}) : double{bias[n]}) : 0;
        for (int64_t k = 0; k < p.inputs; ++k) {
          const double term = double{x[t * p.inputs + k]} * double{w[n * p.inputs + k]};
          total += magnitudes ? std::abs(term) : term;
        }
        return magnitudes ? total * (4 + std::sqrt(p.inputs)) * 0x1p-24 : total;
      };
    };
    expect_near(out, p.outputs, sum(false), sum(true));
  }
};
INSTANTIATE_TEST_SUITE_P(Backends, Matmul, testing::ValuesIn(all_setups()), setup_name);

TEST_P(Matmul, FollowsTheFormulaAtEveryRowCount) {
  for (const int64_t rows : kRowCounts) check({rows, 100, 65, rows % 2 == 1});
}

TEST_P(Matmul, FollowsTheFormulaAtEveryWidth) {
  for (const int64_t inputs : kWidths) {
    for (const int64_t outputs : kWidths) check({5, inputs, outputs, inputs % 2 == 0});
  }
}

TEST_P(Matmul, FollowsTheFormulaAcrossSlicesOfTheDepth) {
  for (const int64_t inputs : {128, 129, 255, 256, 257, 511, 513, 1025}) {
    for (const int64_t rows : {1, 4, 97}) check({rows, inputs, 70, true});
  }
}

TEST_P(Matmul, FollowsTheFormulaWhereThereIsNothingToAddUpOrToMake) {
  for (const int64_t rows : {0, 1, 5, 100}) {
    check({rows, 0, 70, true});
    check({rows, 100, 0, false});
    check({rows, 0, 0, false});
  }
}

TEST_P(Matmul, EveryRowHasItsOwnBitsAlone) {
  // The reference has one loop for all; its slow double sums need no sweep of shapes.
  const bool loops = backend_->name() == "ref";
  for (const int64_t inputs : loops ? std::vector<int64_t>{100} : std::vector<int64_t>{100, 513}) {
    for (const int64_t outputs : {1, 64, 65, 300}) {
      const Array w = Array::random({outputs, inputs}, 4);
      const Array bias = Array::random({outputs}, 5);
      const Array x = Array::random({512, inputs}, 6);
      const auto weight = load(w.view());
      Array alone({512, outputs});
      for (int64_t r = 0; r < 512; ++r) {
        backend_->matmul(x.rows(r, r + 1), *weight, bias.view(), alone.rows(r, r + 1));
      }
      for (const int64_t rows : kRowCounts) {
        Array together({rows, outputs});
        backend_->matmul(x.rows(0, rows), *weight, bias.view(), together.view());
        EXPECT_TRUE(together.begins(alone)) << rows << " x " << inputs << " x " << outputs;
      }
    }
  }
}

// A column must not depend on the columns beside it, or cuts of the columns would show.
TEST_P(Matmul, EveryColumnHasItsOwnBitsAlone) {
  const int64_t inputs = 300, outputs = 130, rows = 9;
  const Array w = Array::random({outputs, inputs}, 7), x = Array::random({rows, inputs}, 8);
  Array all({rows, outputs});
  backend_->matmul(x.view(), *load(w.view()), {}, all.view());
  for (int64_t n = 0; n < outputs; n += 13) {
    const int64_t count = std::min<int64_t>(outputs - n, 1 + n);
    Array some({rows, count});
    backend_->matmul(x.view(), *load(w.rows(n, n + count)), {}, some.view());
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t c = 0; c < count; ++c) {
        ASSERT_EQ(some[t * count + c], all[t * outputs + n + c]) << n << " + " << c;
      }
    }
  }
}

// --- weights

// The value a plain weight takes: rounded to bf16 where that is the compute type. Quantised ones
// stay what they are.
float stored(const Setup& setup, float x) {
  return setup.weights == DType::kBF16 ? to_float(to_bf16(x)) : x;
}

TEST_P(OpsSuite, EmbedReadsEveryStoredTypeExactly) {
  const int64_t rows = 67, width = 96;
  std::mt19937 engine(11);
  std::normal_distribution<float> normal;
  std::vector<float> plain;
  std::vector<f16> half;
  std::vector<bf16> brain;
  std::vector<BlockQ8_0> blocks;
  for (int64_t i = 0; i < rows * width; ++i) {
    plain.push_back(normal(engine));
    half.push_back(to_f16(normal(engine)));
    brain.push_back(to_bf16(normal(engine)));
    if (i % 32 == 0) blocks.push_back({to_f16(std::abs(normal(engine)) / 64), {}});
    blocks.back().quants[i % 32] = static_cast<int8_t>(static_cast<int>(engine() % 255) - 127);
  }
  const auto check = [&](const TensorView& w, const std::function<float(int64_t)>& value) {
    const std::vector<int32_t> ids{0, 66, 31, 32, 33, 64, 65, 5, 5};
    Array out({static_cast<int64_t>(ids.size()), width});
    const auto table = load(w);
    backend_->embed(ids, *table, out.view());
    EXPECT_TRUE(out.guard_is_whole());
    for (int64_t i = 0; i < out.size(); ++i) {
      const int64_t from = ids[static_cast<size_t>(i / width)] * width + i % width;
      const float want = w.type() == DType::kQ8_0 ? value(from) : stored(GetParam(), value(from));
      ASSERT_EQ(out[i], want) << dtype_name(w.type()) << " " << i;
    }
    backend_->embed({}, *table, TensorView(out.view().raw(), DType::kF32, {0, width}));
  };
  const Shape shape{rows, width};
  const auto at = [](const auto& values, int64_t i) { return values[static_cast<size_t>(i)]; };
  check({plain.data(), DType::kF32, shape}, [&](int64_t i) { return at(plain, i); });
  check({half.data(), DType::kF16, shape}, [&](int64_t i) { return to_float(at(half, i)); });
  check({brain.data(), DType::kBF16, shape}, [&](int64_t i) { return to_float(at(brain, i)); });
  check({blocks.data(), DType::kQ8_0, shape}, [&](int64_t i) {
    const BlockQ8_0 block = at(blocks, i / 32);
    return to_float(block.scale) * static_cast<float>(block.quants[i % 32]);
  });
}

TEST_P(OpsSuite, LoadWeightRefusesWhatItCannotRead) {
  std::vector<int32_t> words(64);
  const auto code = [&](const TensorView& w) {
    const auto weight = backend_->load_weight(w);
    EXPECT_FALSE(weight);
    return weight ? ErrorCode::kInternal : weight.error().code;
  };
  EXPECT_EQ(code({words.data(), DType::kI32, {8, 8}}), ErrorCode::kUnsupported);
  EXPECT_EQ(code({words.data(), DType::kI8, {8, 8}}), ErrorCode::kUnsupported);
  EXPECT_EQ(code({words.data(), DType::kF32, {64}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({words.data(), DType::kF32, {2, 4, 8}}), ErrorCode::kInvalidArgument);
  EXPECT_EQ(code({words.data(), DType::kQ8_0, {2, 16}}), ErrorCode::kInvalidArgument);
}

// --- rows

TEST_P(OpsSuite, RmsNorm) {
  const float eps = 1e-5f;
  for (const int64_t width : kWidths) {
    for (const int64_t rows : {0, 1, 3, 65}) {
      const Array x = Array::random({rows, width}, 21), weight = Array::random({width}, 22);
      Array out({rows, width});
      backend_->rms_norm(x.view(), weight.view(), eps, out.view());
      const Formula formula = [&](int64_t r, int64_t c) {
        double squares = 0;
        for (int64_t i = 0; i < width; ++i) squares += std::pow(double{x[r * width + i]}, 2);
        const double root = std::sqrt(squares / static_cast<double>(width) + double{eps});
        return double{x[r * width + c]} / root * double{weight[c]};
      };
      expect_near(out, width, formula, relative(formula, 1e-6));
      Array in_place = x;
      backend_->rms_norm(in_place.view(), weight.view(), eps, in_place.view());
      EXPECT_TRUE(in_place.same_bits(out));
    }
    const Array x = Array::random({300, width}, 23), weight = Array::random({width}, 24);
    expect_rows_alone(300, width, [&](int64_t begin, int64_t end, TensorView out) {
      backend_->rms_norm(x.rows(begin, end), weight.view(), eps, out);
    });
  }
}

TEST_P(OpsSuite, Add) {
  for (const int64_t rows : kRowCounts) {
    const Array before = Array::random({rows, 129}, 31), y = Array::random({rows, 129}, 32);
    Array x = before;
    backend_->add(x.view(), y.view());
    EXPECT_TRUE(x.guard_is_whole());
    for (int64_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], before[i] + y[i]);
  }
}

TEST_P(OpsSuite, Swiglu) {
  for (const int64_t width : kWidths) {
    for (const int64_t rows : {0, 1, 3, 65}) {
      Array gate = Array::random({rows, width}, 41);
      const Array up = Array::random({rows, width}, 42);
      const float wide[] = {-1e30f, -200, -104, -100, -88, -20, -8, 0, 8, 20, 88, 104, 200, 1e30f};
      for (int64_t i = 0; i < gate.size(); i += 3) gate[i] = wide[i % std::ssize(wide)];
      Array out({rows, width});
      backend_->swiglu(gate.view(), up.view(), out.view());
      const Formula formula = [&](int64_t r, int64_t c) {
        const double g = gate[r * width + c];
        return g / (1 + std::exp(-g)) * double{up[r * width + c]};
      };
      expect_near(out, width, formula, relative(formula, 1e-6));
      Array over_gate = gate, over_up = up;
      backend_->swiglu(over_gate.view(), up.view(), over_gate.view());
      backend_->swiglu(gate.view(), over_up.view(), over_up.view());
      EXPECT_TRUE(over_gate.same_bits(out));
      EXPECT_TRUE(over_up.same_bits(out));
    }
  }
  const Array gate = Array::random({512, 77}, 43), up = Array::random({512, 77}, 44);
  expect_rows_alone(512, 77, [&](int64_t begin, int64_t end, TensorView out) {
    backend_->swiglu(gate.rows(begin, end), up.rows(begin, end), out);
  });
}

TEST_P(OpsSuite, Rope) {
  for (const int64_t half : {1, 4, 7, 8, 16, 17, 32, 64}) {
    for (const int64_t rows : kRowCounts) {
      const int64_t heads = 3, width = heads * 2 * half;
      const Array before = Array::random({rows, heads, 2 * half}, 51);
      Array x = before, cos({rows, half}), sin({rows, half});
      for (int64_t i = 0; i < cos.size(); ++i) {
        cos[i] = std::cos(static_cast<float>(i));
        sin[i] = std::sin(static_cast<float>(i));
      }
      backend_->rope(x.view(), cos.view(), sin.view());
      expect_near(
          x, width,
          [&](int64_t r, int64_t c) {
            const int64_t i = c % half, head = c / (2 * half) * 2 * half;
            const double angle_cos = cos[r * half + i], angle_sin = sin[r * half + i];
            const double low = before[r * width + head + i];
            const double high = before[r * width + head + half + i];
            return c - head < half ? low * angle_cos - high * angle_sin
                                   : high * angle_cos + low * angle_sin;
          },
          [](int64_t, int64_t) { return 3e-7; });
      Array alone = before;
      for (int64_t r = 0; r < rows; ++r) {
        backend_->rope(alone.rows(r, r + 1), cos.rows(r, r + 1), sin.rows(r, r + 1));
      }
      EXPECT_TRUE(alone.same_bits(x));
    }
  }
}

TEST_P(OpsSuite, GatherRows) {
  const Array x = Array::random({9, 33}, 61);
  const std::vector<int32_t> rows{8, 0, 3, 3};
  Array out({4, 33});
  backend_->gather_rows(x.view(), rows, out.view());
  EXPECT_TRUE(out.guard_is_whole());
  for (int64_t i = 0; i < out.size(); ++i) {
    ASSERT_EQ(out[i], x[rows[static_cast<size_t>(i / 33)] * 33 + i % 33]);
  }
  Array none({0, 33});
  backend_->gather_rows(x.view(), {}, none.view());
}

// --- the rest of the contract

TEST_P(OpsSuite, MemoryIsZeroAlignedAndCostsNothingUntouched) {
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{1} << 20, int64_t{1} << 38}) {
    const auto buffer = backend_->allocate(bytes);
    ASSERT_TRUE(buffer) << buffer.error().message;
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 64, 0u);
    for (int64_t at = 0; at < bytes; at += std::max<int64_t>(bytes / 4, 1)) {
      EXPECT_EQ(buffer->data()[at], std::byte{0});
    }
    if (bytes > 0) buffer->data()[bytes - 1] = std::byte{1};
  }
  const auto buffer = backend_->allocate(std::numeric_limits<int64_t>::max());
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.error().code, ErrorCode::kTooLarge);
}

TEST_P(OpsSuite, ToHostCopies) {
  const Array x = Array::random({3, 5}, 71);
  Array host({3, 5});
  backend_->to_host(x.view(), host.view().raw());
  EXPECT_TRUE(host.same_bits(x));
  EXPECT_TRUE(host.guard_is_whole());
}

TEST_P(OpsSuite, DescribesItself) {
  EXPECT_EQ(backend_->name(), GetParam().backend);
  EXPECT_NE(backend_->describe().find(GetParam().backend), std::string::npos);
}

// Before a matrix is loaded it is known what it will take.
TEST_P(OpsSuite, WeightBytesAreForeseen) {
  const bool library = GetParam().isa == "avx512bf16" && GetParam().weights == DType::kBF16;
  for (const DType type : {DType::kF32, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                           DType::kQ5_K, DType::kQ6_K}) {
    for (const int64_t rows : {1, 64, 65, 300}) {
      const Shape shape{rows, 512};
      const std::vector<std::byte> zeros(static_cast<size_t>(dtype_bytes(type, rows * 512)));
      const int64_t least = backend_->least_weight_bytes(type, shape);
      const auto weight = load({zeros.data(), type, shape});
      if (library && dtype_block(type) == 1) {
        EXPECT_LE(least, weight->bytes()) << dtype_name(type) << " " << rows;
        EXPECT_GT(backend_->loading_bytes(type, shape), 0);
      } else {
        EXPECT_EQ(least, weight->bytes()) << dtype_name(type) << " " << rows;
      }
    }
  }
}

TEST_P(OpsSuite, WrongShapesAndIdsAreBugs) {
  const Array x = Array::random({2, 8}, 81), w = Array::random({4, 8}, 82);
  Array out({2, 4});
  const auto weight = load(w.view());
  const std::vector<int32_t> beyond{4};
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(backend_->matmul(x.view(), *weight, x.view(), out.view()), "CHECK");
  EXPECT_DEATH(backend_->embed(beyond, *weight, x.rows(0, 1)), "CHECK");
}

// Threads: the same bits from 1, 2 and 5 of them, at sizes where the work is really shared.
TEST(CpuThreads, DoNotShow) {
  for (const DType weights : {DType::kF32, DType::kBF16}) {
    const Array w = Array::random({300, 520}, 91), bias = Array::random({300}, 92);
    for (const int64_t rows : {1, 2, 33, 200, 512}) {
      const Array x = Array::random({rows, 520}, 93);
      std::vector<Array> results;
      for (const int threads : {1, 2, 5}) {
        const auto backend = make({"cpu", "auto", weights, threads});
        Array product({rows, 300});
        const auto weight = backend->load_weight(w.view());
        ASSERT_TRUE(weight);
        backend->matmul(x.view(), **weight, bias.view(), product.view());
        backend->rms_norm(product.view(), bias.view(), 1e-6f, product.view());
        backend->swiglu(product.view(), product.view(), product.view());
        backend->add(product.view(), product.view());
        results.push_back(product);
      }
      EXPECT_TRUE(results[1].same_bits(results[0]));
      EXPECT_TRUE(results[2].same_bits(results[0]));
    }
  }
}

// --- the table

ErrorCode refusal(std::string_view name, const BackendOptions& options, std::string_view mentions) {
  const auto backend = make_backend(name, options);
  EXPECT_FALSE(backend);
  if (backend) return ErrorCode::kInternal;
  EXPECT_NE(backend.error().message.find(mentions), std::string::npos) << backend.error().message;
  return backend.error().code;
}

TEST(Backends, RefuseByName) {
  EXPECT_EQ(refusal("gpu", {}, "cpu, ref"), ErrorCode::kUnsupported);
  EXPECT_EQ(refusal("cpu", {.threads = -1}, "threads"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("ref", {.threads = 1 << 20}, "threads"), ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("cpu", {.isa = "sse9"}, "avx512bf16, avx512, avx2"),
            ErrorCode::kInvalidArgument);
  EXPECT_EQ(refusal("cpu", {.weights = DType::kI8}, "i8"), ErrorCode::kInvalidArgument);
}

TEST(Backends, AnInstructionSetIsThereOrNamedAsMissing) {
  for (const std::string isa : {"avx512bf16", "avx512", "avx2"}) {
    const auto backend = make_backend("cpu", {.isa = isa});
    if (backend) {
      EXPECT_NE((*backend)->describe().find(isa), std::string::npos);
    } else {
      EXPECT_EQ(backend.error().code, ErrorCode::kUnsupported);
      EXPECT_NE(backend.error().message.find("this CPU has"), std::string::npos);
    }
  }
}

}  // namespace
}  // namespace coppice::ops
