// The suite that judges the key-value pages of every backend.
#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ops/attention_suite_case.h"

namespace coppice::ops {
namespace {

constexpr std::array<DType, 3> kTypes{DType::kBF16, DType::kF32, DType::kI8};

class KvPagesSuite : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    subject_ = make_subject(GetParam(), 1);
    if (subject_ == nullptr)
      GTEST_SKIP() << GetParam() << ": this CPU does not have its instructions";
  }
  Subject& subject() { return *subject_; }

  // What a page of this type gives back of one slot's k and v, [D] each.
  std::pair<std::vector<float>, std::vector<float>> write_and_read(DType type,
                                                                   const std::vector<float>& k,
                                                                   const std::vector<float>& v) {
    const auto dim = static_cast<int32_t>(k.size());
    const KvLayout layout = *subject_->kv_layout(type, dim);
    const Buffer memory = *Buffer::allocate(layout.page_bytes);
    const KvArena arena{memory.data(), layout};
    const PageId page = 0;
    AttentionPlan plan;
    plan.rows = plan.kv_heads = 1;
    plan.parts.push_back({.pages = &page, .page_stride = 1, .count = 1});
    plan.targets.push_back({0, 0});
    subject_->write_kv({k.data(), DType::kF32, {1, 1, dim}}, {v.data(), DType::kF32, {1, 1, dim}},
                       0, plan, arena);
    std::vector<float> got_k(k.size()), got_v(v.size());
    subject_->read_page(arena, page, 1, {got_k.data(), DType::kF32, {1, dim}},
                        {got_v.data(), DType::kF32, {1, dim}});
    return {std::move(got_k), std::move(got_v)};
  }

 private:
  std::unique_ptr<Subject> subject_;
};

TEST_P(KvPagesSuite, PagesReadBackWhatWasWritten) {
  for (const DType type : kTypes) {
    for (const int32_t dim : {8, 20, 64, 80, 256}) {
      const auto layout = subject().kv_layout(type, dim);
      ASSERT_TRUE(layout);
      const int32_t slots = layout->page_slots, heads = 3;
      auto memory = Buffer::allocate(layout->page_bytes * heads * 2);
      ASSERT_TRUE(memory);
      const KvArena arena{memory->data(), *layout};
      const std::vector<PageId> pages{4, 1, 0};
      AttentionPlan plan;
      plan.rows = slots - 3;
      plan.kv_heads = heads;
      plan.parts.push_back(
          {.pages = pages.data(), .page_stride = 1, .start = 32, .count = plan.rows});
      std::vector<float> k, v;
      for (int32_t row = 0; row < plan.rows; ++row) {
        plan.targets.push_back({0, 32 + (row + 5) % plan.rows});
        for (int32_t i = 0; i < heads * dim; ++i) {
          k.push_back(static_cast<float>(row * 7 + i) * 0.37f);
          v.push_back(static_cast<float>(row * 3 - i) * 0.53f);
        }
      }
      const Shape shape{plan.rows, heads, dim};
      subject().write_kv({k.data(), DType::kF32, shape}, {v.data(), DType::kF32, shape}, 0, plan,
                         arena);
      const std::vector<float> stored_k = as_stored(type, dim, k),
                               stored_v = as_stored(type, dim, v);
      for (int32_t head = 0; head < heads; ++head) {
        std::vector<float> got_k(static_cast<size_t>(plan.rows * dim)), got_v = got_k;
        const Shape page{plan.rows, dim};
        subject().read_page(arena, pages[static_cast<size_t>(head)], plan.rows,
                            {got_k.data(), DType::kF32, page}, {got_v.data(), DType::kF32, page});
        for (int32_t row = 0; row < plan.rows; ++row) {
          const int32_t slot = (row + 5) % plan.rows;
          for (int32_t d = 0; d < dim; ++d) {
            const auto from = static_cast<size_t>((row * heads + head) * dim + d);
            const auto to = static_cast<size_t>(slot * dim + d);
            ASSERT_EQ(got_k[to], stored_k[from]) << "slot " << slot << " d " << d;
            ASSERT_EQ(got_v[to], stored_v[from]) << "slot " << slot << " d " << d;
          }
        }
      }
    }
  }
}

TEST_P(KvPagesSuite, WhatIsNotFiniteIsStoredAsFinite) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kMost = std::numeric_limits<float>::max();  // rounds to infinity in bf16
  constexpr float kMostBf16 = 0x1.fep127f;
  constexpr float kMostInt8 = 0x1.fcp127f;
  struct Stored {
    float given, f32, bf16, int8;
  };
  // int8: beside the largest, a step is 2^121.
  const std::array<Stored, 9> cases{{{kInf, kMost, kMostBf16, kMostInt8},
                                     {-kInf, -kMost, -kMostBf16, -kMostInt8},
                                     {kMost, kMost, kMostBf16, kMostInt8},
                                     {-kMost, -kMost, -kMostBf16, -kMostInt8},
                                     {kMostBf16, kMostBf16, kMostBf16, kMostInt8},
                                     {std::numeric_limits<float>::quiet_NaN(), 0, 0, 0},
                                     {-std::numeric_limits<float>::quiet_NaN(), 0, 0, 0},
                                     {-1.5f, -1.5f, -1.5f, 0},
                                     {0x1p-130f, 0x1p-130f, 0x1p-130f, 0}}};
  std::vector<float> k, v;
  for (const Stored& c : cases) k.push_back(c.given);
  for (const Stored& c : cases) v.push_back(-c.given);
  for (const DType type : kTypes) {
    const auto [got_k, got_v] = write_and_read(type, k, v);
    for (size_t d = 0; d < cases.size(); ++d) {
      const float want = type == DType::kF32    ? cases[d].f32
                         : type == DType::kBF16 ? cases[d].bf16
                                                : cases[d].int8;
      EXPECT_EQ(got_k[d], want) << dtype_name(type) << " " << cases[d].given;
      EXPECT_EQ(got_v[d], -want) << dtype_name(type) << " " << -cases[d].given;
    }
  }
}

// Ties go to the even, the sign to either side alike, and what is too small for a scale is 0.
TEST_P(KvPagesSuite, Int8RoundsToNearestEven) {
  const std::vector<float> given{127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f, 126.4f};
  const std::vector<float> want{127, 0, 2, 2, 0, -2, -126, 126};
  constexpr float kTiny = 0x1p-149f;
  for (const float unit : {1.0f, 0x1p-100f, 0x1p119f, kTiny}) {
    std::vector<float> k, v;
    for (const float x : given) k.push_back(unit == kTiny ? unit : x * unit);
    for (const float x : k) v.push_back(-x);
    const auto [got_k, got_v] = write_and_read(DType::kI8, k, v);
    for (size_t d = 0; d < k.size(); ++d) {
      EXPECT_EQ(got_k[d], unit == kTiny ? 0 : want[d] * unit) << given[d] << " x " << unit;
      EXPECT_EQ(got_v[d], -got_k[d]) << given[d] << " x " << unit;
    }
  }
}

// Pages 0 and 1, 16 slots each, that hold slot + 1 and slot + 64 in every element of K, and its
// negative in V. The head's dim is no multiple of what lies together in any page.
class TwoPages {
 public:
  static constexpr int32_t kDim = 40;
  TwoPages(Subject& subject, DType type)
      : subject_(subject),
        unit_(type == DType::kI8 ? 127.0f : 1.0f),
        layout_(*subject.kv_layout(type, kDim)),
        memory_(*Buffer::allocate(2 * layout_.page_bytes)),
        arena_{memory_.data(), layout_} {
    fill(0, 1);
    fill(1, 64);
  }
  const KvArena& arena() const { return arena_; }
  int32_t slots() const { return layout_.page_slots; }
  static std::vector<int32_t> run(int32_t from, int32_t n) {
    std::vector<int32_t> numbers(static_cast<size_t>(n));
    std::iota(numbers.begin(), numbers.end(), from);
    return numbers;
  }
  // The number that each slot of a page holds; -1 where its elements disagree.
  std::vector<int32_t> read(PageId id) const {
    std::vector<float> k(static_cast<size_t>(slots()) * kDim), v = k;
    const Shape page{slots(), kDim};
    subject_.read_page(arena_, id, slots(), {k.data(), DType::kF32, page},
                       {v.data(), DType::kF32, page});
    std::vector<int32_t> numbers;
    for (int32_t slot = 0; slot < slots(); ++slot) {
      const float first = k[static_cast<size_t>(slot * kDim)];
      bool same = true;
      for (int32_t at = slot * kDim; at < (slot + 1) * kDim; ++at) {
        same &= k[static_cast<size_t>(at)] == first && v[static_cast<size_t>(at)] == -first;
      }
      numbers.push_back(same ? static_cast<int32_t>(first / unit_) : -1);
    }
    return numbers;
  }

 private:
  void fill(PageId id, int32_t first) {
    AttentionPlan plan;
    plan.rows = slots();
    plan.kv_heads = 1;
    plan.parts.push_back({.pages = &id, .page_stride = 1, .count = slots()});
    std::vector<float> k;
    for (int32_t slot = 0; slot < slots(); ++slot) {
      plan.targets.push_back({0, slot});
      k.resize(k.size() + kDim, unit_ * static_cast<float>(first + slot));
    }
    std::vector<float> v;
    for (const float x : k) v.push_back(-x);
    const Shape shape{slots(), 1, kDim};
    subject_.write_kv({k.data(), DType::kF32, shape}, {v.data(), DType::kF32, shape}, 0, plan,
                      arena_);
  }

  Subject& subject_;
  float unit_;  // so that every type holds the numbers exactly
  KvLayout layout_;
  Buffer memory_;
  KvArena arena_;
};

TEST_P(KvPagesSuite, CopiedSlotsAreThoseAndNoOthers) {
  for (const DType type : kTypes) {
    const int32_t slots = TwoPages(subject(), type).slots();
    for (int32_t from = 0; from < slots; ++from) {
      for (int32_t to = 0; to < slots; ++to) {
        for (int32_t count = 0; count <= slots - std::max(from, to); ++count) {
          TwoPages pages(subject(), type);
          subject().copy_slots(pages.arena(), 0, from, 1, to, count);
          std::vector<int32_t> want = TwoPages::run(64, slots);
          for (int32_t i = 0; i < count; ++i) want[static_cast<size_t>(to + i)] = 1 + from + i;
          ASSERT_EQ(pages.read(1), want) << count << " from " << from << " to " << to;
          ASSERT_EQ(pages.read(0), TwoPages::run(1, slots));
        }
      }
    }
  }
}

TEST_P(KvPagesSuite, SlotsMoveDownInsideAPage) {
  for (const DType type : kTypes) {
    const int32_t slots = TwoPages(subject(), type).slots();
    for (int32_t from = 0; from < slots; ++from) {
      for (int32_t to = 0; to <= from; ++to) {
        for (int32_t count = 0; count <= slots - from; ++count) {
          TwoPages pages(subject(), type);
          subject().copy_slots(pages.arena(), 0, from, 0, to, count);
          std::vector<int32_t> want = TwoPages::run(1, slots);
          for (int32_t i = 0; i < count; ++i) want[static_cast<size_t>(to + i)] = 1 + from + i;
          ASSERT_EQ(pages.read(0), want) << count << " from " << from << " to " << to;
          ASSERT_EQ(pages.read(1), TwoPages::run(64, slots));
        }
      }
    }
  }
}

// Each list has targets of its own: the rows of one KV head in one part, of the other in two.
TEST_P(KvPagesSuite, TargetsOfAList) {
  for (const DType type : kTypes) {
    const int32_t dim = 32, heads = 2, layers = 2, rows = 3;
    const auto layout = subject().kv_layout(type, dim);
    ASSERT_TRUE(layout);
    const Buffer memory = *Buffer::allocate(8 * layout->page_bytes);
    const KvArena arena{memory.data(), *layout};
    const std::vector<PageId> kept{7, 2, 0, 5}, dropped{1, 6, 4, 3};
    const std::vector<int32_t> kept_counts{2, 2, 3, 1}, dropped_counts{1, 1, 0, 2};
    const std::vector<int32_t> dropped_starts{0, 16, 0, 32};
    AttentionPlan plan;
    plan.rows = rows;
    plan.kv_heads = heads;
    plan.parts = {{.pages = kept.data(), .page_stride = 1, .counts = kept_counts.data()},
                  {.pages = dropped.data(),
                   .page_stride = 1,
                   .starts = dropped_starts.data(),
                   .counts = dropped_counts.data()}};
    plan.target_stride = rows;
    plan.targets = {{0, 0}, {0, 1}, {1, 0}, {0, 0},  {1, 16}, {0, 1},
                    {0, 0}, {0, 1}, {0, 2}, {1, 32}, {0, 0},  {1, 33}};
    const float unit = type == DType::kI8 ? 127.0f : 1.0f;
    for (int32_t layer = 0; layer < layers; ++layer) {
      std::vector<float> k;
      for (int32_t at = 0; at < rows * heads; ++at) {
        const auto number = static_cast<float>(10 * layer + at);  // of a row and a head
        k.resize(k.size() + dim, unit * number);
      }
      const TensorView view(k.data(), DType::kF32, {rows, heads, dim});
      subject().write_kv(view, view, layer, plan, arena);
    }
    const auto held = [&](PageId page, int32_t count) {
      std::vector<float> k(static_cast<size_t>(count * dim)), v = k;
      subject().read_page(arena, page, count, {k.data(), DType::kF32, {count, dim}},
                          {v.data(), DType::kF32, {count, dim}});
      EXPECT_EQ(k, v);
      std::vector<float> numbers;
      for (int32_t i = 0; i < count; ++i) {
        for (int32_t d = 1; d < dim; ++d) {
          EXPECT_EQ(k[static_cast<size_t>(i * dim + d)], k[static_cast<size_t>(i * dim)]);
        }
        numbers.push_back(k[static_cast<size_t>(i * dim)] / unit);
      }
      return numbers;
    };
    using Numbers = std::vector<float>;
    EXPECT_EQ(held(7, 2), (Numbers{0, 2}));
    EXPECT_EQ(held(1, 1), (Numbers{4}));
    EXPECT_EQ(held(2, 2), (Numbers{1, 5}));
    EXPECT_EQ(held(6, 1), (Numbers{3}));
    EXPECT_EQ(held(0, 3), (Numbers{10, 12, 14}));
    EXPECT_EQ(held(5, 1), (Numbers{13}));
    EXPECT_EQ(held(3, 2), (Numbers{11, 15}));
  }
}

TEST_P(KvPagesSuite, ZeroedPagesAreZeroAndNeighboursAreNot) {
  const auto layout = subject().kv_layout(DType::kBF16, 64);
  ASSERT_TRUE(layout);
  auto memory = Buffer::allocate(layout->page_bytes * 3);
  ASSERT_TRUE(memory);
  std::memset(memory->data(), 0x11, static_cast<size_t>(memory->bytes()));
  const KvArena arena{memory->data(), *layout};
  const PageId middle = 1;
  subject().zero_pages(arena, {&middle, 1});
  for (int64_t at = 0; at < memory->bytes(); ++at) {
    const bool zeroed = at / layout->page_bytes == 1;
    ASSERT_EQ(memory->data()[at], zeroed ? std::byte{0} : std::byte{0x11}) << "byte " << at;
  }
}

// A slot's bytes are its elements and, of int8, two scales; a page's are its slots', padding aside.
TEST_P(KvPagesSuite, PagesAreAsLargeAsTheirSlots) {
  EXPECT_EQ(kv_slot_bytes(DType::kBF16, 64), 256);
  EXPECT_EQ(kv_slot_bytes(DType::kF32, 64), 512);
  EXPECT_EQ(kv_slot_bytes(DType::kI8, 64), 136);
  for (const DType type : kTypes) {
    const auto layout = subject().kv_layout(type, 64);
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->page_bytes, layout->page_slots * kv_slot_bytes(type, 64));
  }
}

TEST_P(KvPagesSuite, RefusesWhatNoPageHolds) {
  for (const DType type : {DType::kQ8_0, DType::kF16}) {
    const auto layout = subject().kv_layout(type, 64);
    ASSERT_FALSE(layout);
    EXPECT_EQ(layout.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(layout.error().message.find(dtype_name(type)), std::string::npos);
    EXPECT_NE(layout.error().message.find("bf16"), std::string::npos);
  }
  EXPECT_FALSE(subject().kv_layout(DType::kBF16, 0));
  EXPECT_FALSE(subject().kv_layout(DType::kBF16, -64));
}

INSTANTIATE_TEST_SUITE_P(, KvPagesSuite, testing::Values("ref", "cpu", "kernel/avx2"),
                         [](const auto& subject) { return test_name(subject.param); });

}  // namespace
}  // namespace coppice::ops
