// Counting what a backend is asked for: the results stay the wrapped one's, the amounts are those
// of the formulas.
#include "ops/op_profile.h"

#include <gtest/gtest.h>

#include <vector>

#include "ops/backends.h"

namespace coppice::ops {
namespace {

const OpCount& find(const OpProfile& profile, const std::string& name) {
  for (const OpCount& count : profile.counts()) {
    if (count.name == name) return count;
  }
  ADD_FAILURE() << "no " << name;
  return profile.counts().front();
}

class OpProfileTest : public testing::Test {
 protected:
  OpProfileTest() {
    auto inner = make_backend("ref", {.threads = 1, .weights = DType::kF32});
    backend_ = profiled(std::move(*inner), DType::kF32, profile_);
  }

  std::shared_ptr<OpProfile> profile_ = std::make_shared<OpProfile>();
  std::unique_ptr<Backend> backend_;
};

TEST_F(OpProfileTest, AProductCountsItsMultiplyAddsAndOperands) {
  const std::vector<float> w(3 * 4, 2.0f), x(5 * 4, 1.0f);
  std::vector<float> out(5 * 3);
  const auto weight = backend_->load_weight({w.data(), DType::kF32, {3, 4}});
  ASSERT_TRUE(weight);
  for (int i = 0; i < 2; ++i) {
    backend_->matmul({x.data(), DType::kF32, {5, 4}}, **weight, {},
                     {out.data(), DType::kF32, {5, 3}});
  }
  EXPECT_EQ(out, std::vector<float>(15, 8.0f));
  const OpCount& count = find(*profile_, "product");
  EXPECT_EQ(count.calls, 2);
  EXPECT_EQ(count.n, 3);
  EXPECT_EQ(count.k, 4);
  EXPECT_EQ(count.type, DType::kF32);
  EXPECT_EQ(count.flops, 2 * 2.0 * 5 * 4 * 3);
  EXPECT_EQ(count.bytes, 2 * ((*weight)->bytes() + 4.0 * (5 * 4 + 5 * 3)));
  EXPECT_GT(count.seconds, 0.0);
  EXPECT_EQ(profile_->seconds(), count.seconds);
}

TEST_F(OpProfileTest, ProductsDoneTogetherCountAsEach) {
  const std::vector<float> w(8 * 4, 2.0f), x(5 * 4, 1.0f);
  std::vector<float> narrow(5 * 3), wide(5 * 8);
  const auto first = *backend_->load_weight({w.data(), DType::kF32, {3, 4}});
  const auto second = *backend_->load_weight({w.data(), DType::kF32, {8, 4}});
  const Product products[] = {{*first, {}, {narrow.data(), DType::kF32, {5, 3}}},
                              {*second, {}, {wide.data(), DType::kF32, {5, 8}}}};
  backend_->matmul_each({x.data(), DType::kF32, {5, 4}}, products);
  EXPECT_EQ(wide, std::vector<float>(40, 8.0f));
  double bytes = 0;
  for (const OpCount& count : profile_->counts()) {
    if (count.name != "product") continue;
    EXPECT_EQ(count.calls, 1);
    EXPECT_EQ(count.flops, 2.0 * 5 * 4 * static_cast<double>(count.n));
    EXPECT_GT(count.seconds, 0.0);
    bytes += count.bytes;
  }
  // What they all read is read once.
  EXPECT_DOUBLE_EQ(
      bytes, static_cast<double>(first->bytes() + second->bytes()) + 4.0 * (5 * 4 + 5 * 3 + 5 * 8));
}

// The ceiling is that of the arithmetic, whatever type the file has.
TEST_F(OpProfileTest, PlainWeightsCountAsWhatTheyAreComputedIn) {
  const std::vector<float> w(8 * 32);
  const std::vector<bf16> narrow(w.size());
  std::vector<std::byte> blocks(static_cast<size_t>(dtype_bytes(DType::kQ8_0, 8 * 32)));
  for (const DType computed : {DType::kBF16, DType::kF32}) {
    const auto profile = std::make_shared<OpProfile>();
    auto inner = make_backend("ref", {.threads = 1, .weights = computed});
    const auto backend = profiled(std::move(*inner), computed, profile);
    const auto products = [&] {
      std::vector<DType> types;
      for (const OpCount& count : profile->counts()) {
        if (count.name == "product") types.push_back(*count.type);
      }
      return types;
    };
    ASSERT_TRUE(backend->load_weight({w.data(), DType::kF32, {8, 32}}));
    ASSERT_TRUE(backend->load_weight({narrow.data(), DType::kBF16, {8, 32}}));
    EXPECT_EQ(products(), std::vector<DType>{computed});
    ASSERT_TRUE(backend->load_weight({blocks.data(), DType::kQ8_0, {8, 32}}));
    EXPECT_EQ(products(), (std::vector<DType>{computed, DType::kQ8_0}));
  }
}

TEST_F(OpProfileTest, WeightsOfOneShapeAndTypeAreCountedTogether) {
  const std::vector<float> w(64);
  for (const Shape& shape : {Shape{8, 8}, Shape{8, 8}, Shape{4, 16}}) {
    ASSERT_TRUE(backend_->load_weight({w.data(), DType::kF32, shape}));
  }
  int products = 0;
  for (const OpCount& count : profile_->counts()) products += count.name == "product" ? 1 : 0;
  EXPECT_EQ(products, 2);
}

// Two rows of one sequence over 20 slots, of which the first sees 19, and one that sees the first
// page alone: a shared page and a private part.
TEST_F(OpProfileTest, AttentionCountsWhatItsRowsSee) {
  const auto layout = backend_->kv_layout(DType::kF32, 4);
  ASSERT_TRUE(layout);
  const int32_t slots = layout->page_slots, heads = 2;
  const auto memory = backend_->allocate(layout->page_bytes * 4);
  ASSERT_TRUE(memory);
  const KvArena arena{memory->data(), *layout};
  const std::vector<PageId> pages{0, 1, 2, 3};  // [lists = 1 layer x 2 heads][2]
  AttentionPlan plan;
  plan.rows = 3;
  plan.kv_heads = heads;
  plan.parts = {{.pages = pages.data(), .page_stride = 2, .start = 0, .count = slots},
                {.pages = pages.data() + 1, .page_stride = 2, .start = slots, .count = 4}};
  plan.segments = {{0, 3, 0, 1}, {0, 2, 1, 2}};
  plan.targets = {{1, slots + 2}, {1, slots + 3}, {0, slots - 1}};
  plan.row_first = {0, 0, 0};
  plan.row_last = {slots + 3, slots + 4, slots};
  const std::vector<float> q(3 * 4 * 4, 0.5f);
  std::vector<float> out(q.size());
  const Shape shape{3, 4, 4};
  backend_->attention({q.data(), DType::kF32, shape}, {}, plan, arena,
                      {out.data(), DType::kF32, shape});
  const OpCount& count = find(*profile_, "attention");
  const double seen = slots + 3 + slots + 4 + slots, query_heads = 4, dim = 4;
  EXPECT_EQ(count.exps, seen * query_heads);
  EXPECT_EQ(count.flops, 4 * dim * seen * query_heads);
  const double slot_bytes = static_cast<double>(layout->page_bytes) / slots;
  EXPECT_DOUBLE_EQ(count.bytes, (slots + 4) * slot_bytes * heads + 2 * 4.0 * 3 * 4 * 4);
  EXPECT_EQ(count.type, DType::kF32);

  // Through a window of one slot, each row reads its own last one.
  profile_->reset();
  EXPECT_EQ(count.calls, 0);
  backend_->attention({q.data(), DType::kF32, shape}, {.window = 1}, plan, arena,
                      {out.data(), DType::kF32, shape});
  EXPECT_EQ(count.exps, 3 * query_heads);
}

// A gated row of two layers and two heads: every list has bounds of its own, kept and dropped.
TEST_F(OpProfileTest, AttentionCountsEveryListAndWhatIsDroppedOfIt) {
  const auto layout = backend_->kv_layout(DType::kF32, 4);
  ASSERT_TRUE(layout);
  const int32_t slots = layout->page_slots, heads = 2;
  const auto memory = backend_->allocate(layout->page_bytes * 8);
  ASSERT_TRUE(memory);
  backend_->zero_pages({memory->data(), *layout}, std::vector<PageId>{0, 1, 2, 3, 4, 5, 6, 7});
  profile_->reset();
  const std::vector<PageId> kept{0, 1, 2, 3}, dropped{4, 5, 6, 7};  // [lists][1]
  const std::vector<int32_t> counts{5, 0, 16, 3}, dropped_counts{3, 8, 1, 6};
  AttentionPlan plan;
  plan.rows = 1;
  plan.kv_heads = heads;
  plan.parts = {
      {.pages = kept.data(), .page_stride = 1, .counts = counts.data()},
      {.pages = dropped.data(), .page_stride = 1, .counts = dropped_counts.data(), .start = slots}};
  plan.segments = {{0, 1, 0, 1, false}, {0, 1, 1, 2, true}};
  plan.row_stride = plan.rows;
  plan.row_first = {0, 0, 0, 0};
  plan.row_last = counts;
  plan.dropped_first = {slots + 1, slots, slots + 1, slots + 2};
  plan.dropped_last = {slots + 3, slots + 8, slots + 1, slots + 5};
  const std::vector<float> q(4 * 4, 0.5f);
  std::vector<float> out(q.size());
  const Shape shape{1, 4, 4};
  const double slot_bytes = static_cast<double>(layout->page_bytes) / slots;
  const double seen[] = {5 + 2 + 0 + 8, 16 + 0 + 3 + 3};
  double exps = 0, bytes = 0;
  for (int32_t layer = 0; layer < 2; ++layer) {
    backend_->attention({q.data(), DType::kF32, shape}, {.layer = layer}, plan,
                        {memory->data(), *layout}, {out.data(), DType::kF32, shape});
    exps += seen[layer] * 2;  // query heads of a KV head
    bytes += seen[layer] * slot_bytes + 2 * 4.0 * 4 * 4;
    const OpCount& count = find(*profile_, "attention");
    EXPECT_EQ(count.exps, exps) << "layer " << layer;
    EXPECT_DOUBLE_EQ(count.bytes, bytes) << "layer " << layer;
  }
}

}  // namespace
}  // namespace coppice::ops
