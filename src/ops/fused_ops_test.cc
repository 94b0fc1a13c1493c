// What a backend does in one pass has the bits of its parts.
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "ops/backends.h"
#include "tensor/narrow.h"

namespace coppice::ops {
namespace {

constexpr float kPoison = std::numeric_limits<float>::quiet_NaN();

std::vector<float> values(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& value : out) value = uniform(random);
  return out;
}

TensorView view(const std::vector<float>& x, const Shape& shape) {
  CHECK(static_cast<int64_t>(x.size()) == shape.elements());
  return {x.data(), DType::kF32, shape};
}

struct Setup {
  std::string backend;
  int threads;
};

class FusedOps : public ::testing::TestWithParam<Setup> {
 protected:
  std::unique_ptr<Backend> backend_ =
      *make_backend(GetParam().backend, {.threads = GetParam().threads});
};
INSTANTIATE_TEST_SUITE_P(, FusedOps,
                         ::testing::Values(Setup{"ref", 1}, Setup{"cpu", 1}, Setup{"cpu", 3}),
                         [](const auto& test) {
                           return test.param.backend + std::to_string(test.param.threads);
                         });

// Weights of every kind of prepared rows, alike and not, side by side and apart.
TEST_P(FusedOps, MatmulEachIsEveryMatmul) {
  const int64_t inputs = 512;
  const DType types[] = {DType::kQ4_0, DType::kQ8_0, DType::kF32, DType::kQ4_K,
                         DType::kQ4_K, DType::kBF16, DType::kQ8_0};
  std::vector<std::unique_ptr<Weight>> weights;
  for (const DType type : types) {
    const int64_t outputs = 40 + 97 * static_cast<int64_t>(weights.size());
    const auto plain = values(outputs * inputs, static_cast<uint32_t>(outputs));
    std::vector<std::byte> stored(
        static_cast<size_t>(dtype_bytes(type, static_cast<int64_t>(plain.size()))));
    narrow_row(type, plain.data(), static_cast<int64_t>(plain.size()), stored.data());
    weights.push_back(*backend_->load_weight({stored.data(), type, {outputs, inputs}}));
  }
  const auto bias = values(weights[1]->rows(), 1);
  for (const int64_t rows : {0, 1, 2, 3, 5, 7, 33, 130}) {
    const auto x = values(rows * inputs, 2);
    std::vector<std::vector<float>> alone, together;
    std::vector<Product> products;
    for (const auto& weight : weights) {
      alone.emplace_back(static_cast<size_t>(rows * weight->rows()), kPoison);
      together.push_back(alone.back());
    }
    for (size_t i = 0; i < weights.size(); ++i) {
      const Shape shape{rows, weights[i]->rows()};
      const TensorView offsets = i == 1 ? view(bias, {weights[i]->rows()}) : TensorView();
      backend_->matmul(view(x, {rows, inputs}), *weights[i], offsets, view(alone[i], shape));
      products.push_back({*weights[i], offsets, view(together[i], shape)});
    }
    backend_->matmul_each(view(x, {rows, inputs}), products);
    for (size_t i = 0; i < weights.size(); ++i)
      EXPECT_EQ(together[i], alone[i]) << rows << " " << i;
  }
}

TEST_P(FusedOps, AddRmsNormIsAddThenRmsNorm) {
  for (const int64_t width : {1, 7, 64, 2048}) {
    for (const int64_t rows : {0, 1, 5, 200}) {
      const Shape shape{rows, width};
      const auto y = values(rows * width, 4), weight = values(width, 5);
      auto want_x = values(rows * width, 3), x = want_x;
      std::vector<float> want(x.size(), kPoison), out = want;
      backend_->add(view(want_x, shape), view(y, shape));
      backend_->rms_norm(view(want_x, shape), view(weight, {width}), 1e-5f, view(want, shape));
      auto over = y, x_of_over = x;
      backend_->add_rms_norm(view(x, shape), view(y, shape), view(weight, {width}), 1e-5f,
                             view(out, shape));
      EXPECT_EQ(x, want_x);
      EXPECT_EQ(out, want);
      backend_->add_rms_norm(view(x_of_over, shape), view(over, shape), view(weight, {width}),
                             1e-5f, view(over, shape));
      EXPECT_EQ(over, want) << "in y's place";
    }
  }
}

// Pages of `heads` KV heads whose slots [0, rows) one step writes, in another order than its rows.
class Pages {
 public:
  Pages(Backend& backend, int32_t rows, int32_t heads, int32_t dim) {
    arena_.layout = *backend.kv_layout(DType::kBF16, dim);
    plan_.rows = rows;
    plan_.kv_heads = heads;
    const int32_t slots = arena_.layout.page_slots, each = (rows + slots - 1) / slots;
    for (PageId id = 0; id < heads * each; ++id) ids_.push_back(id);
    memory_ = *backend.allocate(arena_.layout.page_bytes * heads * each);
    arena_.base = memory_.data();
    plan_.parts.push_back({.pages = ids_.data(), .page_stride = each, .count = rows});
    for (int32_t row = 0; row < rows; ++row) plan_.targets.push_back({0, (row + 3) % rows});
  }
  const AttentionPlan& plan() const { return plan_; }
  const KvArena& arena() const { return arena_; }
  std::vector<std::byte> bytes() const {
    return {memory_.data(), memory_.data() + memory_.bytes()};
  }

 private:
  std::vector<PageId> ids_;
  Buffer memory_;
  KvArena arena_;
  AttentionPlan plan_;
};

TEST_P(FusedOps, RopeWriteKvIsRopeThenWriteKv) {
  for (const int32_t rows : {1, 5, 40, 130}) {
    const int32_t queries = 6, keys = 2, dim = 40;
    const Shape q_shape{rows, queries, dim}, k_shape{rows, keys, dim}, angles{rows, dim / 2};
    const auto cos = values(angles.elements(), 6), sin = values(angles.elements(), 7);
    const auto v = values(k_shape.elements(), 8);
    auto want_q = values(q_shape.elements(), 9), want_k = values(k_shape.elements(), 10);
    auto q = want_q, k = want_k;
    Pages want(*backend_, rows, keys, dim), got(*backend_, rows, keys, dim);
    backend_->rope(view(want_q, q_shape), view(cos, angles), view(sin, angles));
    backend_->rope(view(want_k, k_shape), view(cos, angles), view(sin, angles));
    backend_->write_kv(view(want_k, k_shape), view(v, k_shape), 0, want.plan(), want.arena());
    backend_->rope_write_kv(view(q, q_shape), view(k, k_shape), view(v, k_shape), view(cos, angles),
                            view(sin, angles), 0, got.plan(), got.arena());
    EXPECT_EQ(q, want_q);
    EXPECT_EQ(got.bytes(), want.bytes()) << rows;
  }
}

}  // namespace
}  // namespace coppice::ops
