// Which pages a walk comes to, counted: with a window those that some row sees, and no others.
#include "ops/cpu/attention_tiles.h"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <vector>

#include "ops/attention_cases.h"
#include "ops/cpu/attention.h"

namespace coppice::ops::cpu {
namespace {

// A company over one root, one head; its pages are never read. dropped: of a gated sequence, how
// many dropped slots its last row sees, one less with every row before.
class Walks {
 public:
  Walks(int32_t shared, const std::vector<int32_t>& own, int32_t rows_each,
        const std::vector<int32_t>& dropped = {})
      : memory_(*Buffer::allocate(kPages * layout_.page_bytes)),
        forest_(layout_, memory_.data(), kPages, 1) {
    const int32_t root = forest_.add_node(-1, {shared});
    for (const int32_t n : own) forest_.add_sequence(forest_.add_node(root, {n}), rows_each);
    for (const int32_t n : dropped) add_gated(forest_.add_node(root, {20}), rows_each, n);
    std::mt19937 random(1);
    plan_ = forest_.plan(1, {}, random);
    job_.plan = &plan_.plan;
    job_.arena = forest_.arena();
    job_.query_heads = job_.group = 1;
  }

  AttentionJob& job() { return job_; }
  const AttentionPlan& plan() const { return plan_.plan; }
  const KvArena& arena() const { return forest_.arena(); }

  // Pages as often as the walk comes to them.
  std::multiset<const std::byte*> walked(bool takes_dropped = true) const {
    const int32_t rows = job_.plan->rows;
    std::vector<int32_t> first, last, dropped_first, dropped_last;
    for (int32_t row = 0; row < rows; ++row) {
      first.push_back(job_.first(0, row));
      last.push_back(job_.plan->last(0, row));
      if (!job_.plan->gated()) continue;
      dropped_first.push_back(job_.plan->first_dropped(0, row));
      dropped_last.push_back(job_.plan->last_dropped(0, row));
    }
    AttentionRows scratch{.first = first.data(), .last = last.data()};
    scratch.dropped_first = dropped_first.data();
    scratch.dropped_last = dropped_last.data();
    AttentionItem item;
    item.row_end = rows;
    item.slot_end = 1 << 20;
    if (job_.plan->gated() && takes_dropped) item.dropped_range = kDroppedRange;
    std::multiset<const std::byte*> pages;
    TileWalk walk(job_, item, scratch);
    for (Tile tile; walk.next(tile);) {
      const bool dropped = tile.last == scratch.dropped_last;
      EXPECT_EQ(tile.first, dropped ? scratch.dropped_first : scratch.first);
      EXPECT_EQ(tile.range, dropped ? kDroppedRange : tile.slot / kFoldRange);
      for (int i = 0; i < tile.pages; ++i) pages.insert(tile.page[static_cast<size_t>(i)]);
    }
    return pages;
  }

  // The pages of every segment that any of its rows sees a slot of.
  std::multiset<const std::byte*> seen(bool with_dropped = true) const {
    std::multiset<const std::byte*> pages;
    for (const Segment& segment : job_.plan->segments) {
      if (segment.dropped && !with_dropped) continue;
      for (int32_t p = segment.part_begin; p < segment.part_end; ++p) {
        const KvPart& part = job_.plan->parts[static_cast<size_t>(p)];
        for (int32_t at = 0; at < part.list_count(0); at += kPageSlots) {
          bool any = false;
          for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
            for (int32_t i = at; i < std::min(part.list_count(0), at + kPageSlots); ++i) {
              const int32_t slot = part.list_start(0) + i;
              any |= segment.dropped ? slot >= job_.plan->first_dropped(0, row) &&
                                           slot < job_.plan->last_dropped(0, row)
                                     : slot >= job_.first(0, row) && slot < job_.plan->last(0, row);
            }
          }
          if (any) pages.insert(arena().page(part.list_pages(0)[at / kPageSlots]));
        }
      }
    }
    return pages;
  }

 private:
  static constexpr int32_t kPages = 600;
  static constexpr int32_t kDroppedRange = 77;  // no kept slot's

  void add_gated(int32_t node, int32_t rows, int32_t seen) {
    ForestGate gate;
    gate.dropped = forest_.add_dropped({32}, {40 + seen});
    for (int32_t r = 0; r < rows; ++r) {
      gate.last.push_back(forest_.path_slots(node, 0));
      gate.dropped_last.push_back(32 + 40 + std::max(0, seen - rows + 1 + r));
      gate.dropped_first.push_back(32 + 40);
    }
    forest_.add_gated_sequence(node, rows, std::move(gate));
  }

  KvLayout layout_ = *kv_layout(DType::kBF16, 16);
  Buffer memory_;
  Forest forest_;
  CasePlan plan_;
  AttentionJob job_;
};

TEST(TileWalk, ComesToThePagesThatSomeRowSeesAndNoOthers) {
  Walks decodes(1024, {0, 1, 30, 200, 700}, 1), prefills(1024, {60, 150}, 50);
  for (Walks* walks : {&decodes, &prefills}) {
    for (const int32_t window : {0, 1, 15, 16, 17, 64, 100, 512, 513, 1024, 5000}) {
      walks->job().window = window;
      EXPECT_EQ(walks->walked(), walks->seen()) << "window " << window;
    }
  }
}

TEST(TileWalk, DroppedSlotsAreWalkedByTheirOwnBoundsWhereTheItemTakesThem) {
  Walks decodes(1024, {0, 30}, 1, {0, 1, 7, 8, 9, 300}), prefills(600, {60}, 50, {0, 20, 90});
  for (const Walks* walks : {&decodes, &prefills}) {
    EXPECT_EQ(walks->walked(), walks->seen());
    EXPECT_EQ(walks->walked(false), walks->seen(false));
    EXPECT_GT(walks->walked().size(), walks->walked(false).size());
  }
}

TEST(TileWalk, AWindowOf64In4096SlotsTakesFourPagesOrFive) {
  for (const int32_t own : {0, 1, 15, 16}) {
    Walks alone(4096, {own}, 1);
    EXPECT_EQ(alone.walked().size(), 256u + (own > 0 ? 1u : 0u));
    alone.job().window = 64;
    EXPECT_EQ(alone.walked().size(), own % 16 == 0 ? 4u : 5u) << own;
  }
}

// Dropped slots make no item of their own: they are the last one's of their rows.
TEST(AttentionItems, DroppedSlotsAddNone) {
  const std::vector<float> q(32);
  std::vector<float> out(32);
  for (const bool gated : {false, true}) {
    Walks walks(4096, {20, 20}, 1, {});
    Walks with(4096, {20}, 1, {300});
    Walks& both = gated ? with : walks;
    const Shape shape{2, 1, 16};
    Attention attention(attention_kernel(*choose_isa("avx2")), 4);
    const TensorView query(const_cast<float*>(q.data()), DType::kF32, shape);
    EXPECT_EQ(
        attention.begin(query, {}, both.plan(), both.arena(), {out.data(), DType::kF32, shape}), 4);
  }
}

// What a window leaves to be done is what the threads share.
TEST(AttentionItems, OnlyRangesThatARowSeesAreCut) {
  Walks alone(4096, {100}, 1);
  const std::vector<float> q(16);
  std::vector<float> out(16);
  const Shape shape{1, 1, 16};
  Attention attention(attention_kernel(*choose_isa("avx2")), 4);
  const auto items = [&](int32_t window) {
    const TensorView query(const_cast<float*>(q.data()), DType::kF32, shape);
    return attention.begin(query, {.window = window}, alone.plan(), alone.arena(),
                           {out.data(), DType::kF32, shape});
  };
  EXPECT_EQ(items(0), 4);
  EXPECT_EQ(items(100), 1);
  EXPECT_EQ(items(101), 2);
  EXPECT_EQ(items(100 + 512), 2);
  EXPECT_EQ(items(100 + 513), 3);
}

}  // namespace
}  // namespace coppice::ops::cpu
