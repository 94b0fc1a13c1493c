#include "kv/page_pool.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "kv/page_table.h"
#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

PagePool make_pool(PageBackend& backend, int64_t budget, int64_t max) {
  auto pool = PagePool::create(backend, *backend.kv_layout(DType::kF32, 2), budget, max);
  CHECK(pool.has_value());
  return std::move(*pool);
}

TEST(PagePool, HandsOutZeroedPagesAndCountsThem) {
  PageBackend backend(4);
  PagePool pool = make_pool(backend, 3, 3);
  std::array<PageId, 3> ids{};
  pool.take(ids);
  EXPECT_EQ(pool.held(), 3);
  EXPECT_EQ(pool.room(), 0);
  for (PageId id : ids) {
    for (int64_t i = 0; i < pool.page_bytes(); ++i) {
      ASSERT_EQ(pool.arena().page(id)[i], std::byte{0});
    }
  }
  pool.arena().page(ids[1])[5] = std::byte{9};
  pool.give_back(std::span(ids).subspan(1, 1));
  EXPECT_FALSE(pool.is_held(ids[1]));
  EXPECT_EQ(pool.room(), 1);
  std::array<PageId, 1> again{};
  pool.take(again);
  EXPECT_EQ(again[0], ids[1]);  // last in, first out: no more memory is touched than was held
  EXPECT_EQ(pool.arena().page(again[0])[5], std::byte{0});
}

TEST(PagePool, WhatComesBackTogetherGoesOutInTheSameOrder) {
  PageBackend backend(4);
  PagePool pool = make_pool(backend, 6, 6);
  std::array<PageId, 6> ids{}, again{};
  pool.take(ids);
  pool.give_back(std::span(ids).subspan(3));
  pool.give_back(std::span(ids).subspan(0, 3));
  pool.take(again);
  EXPECT_EQ(again, ids);
}

TEST(PagePool, ABudgetMayShrinkBelowWhatIsHeld) {
  PageBackend backend(4);
  PagePool pool = make_pool(backend, 4, 6);
  std::array<PageId, 3> ids{};
  pool.take(ids);
  pool.set_budget(2);
  EXPECT_EQ(pool.room(), -1);
  pool.give_back(ids);
  EXPECT_EQ(pool.room(), 2);
  pool.set_budget(6);
  std::array<PageId, 6> all{};
  pool.take(all);
  EXPECT_EQ(pool.room(), 0);
}

TEST(PagePoolDeath, NoPageTwiceAndNoneBeyondTheBudget) {
  PageBackend backend(4);
  PagePool pool = make_pool(backend, 1, 1);
  std::array<PageId, 1> id{};
  pool.take(id);
  std::array<PageId, 1> more{};
  EXPECT_DEATH(pool.take(more), "room");
  pool.give_back(id);
  EXPECT_DEATH(pool.give_back(id), "is_held");
}

TEST(PagePool, RefusesWhatPageIdsCannotName) {
  PageBackend backend(4);
  const ops::KvLayout layout = *backend.kv_layout(DType::kF32, 2);
  const auto pool = PagePool::create(backend, layout, 1, int64_t{1} << 40);
  ASSERT_FALSE(pool.has_value());
  EXPECT_EQ(pool.error().code, ErrorCode::kTooLarge);
  const auto shrunk = PagePool::create(backend, layout, 5, 4);
  ASSERT_FALSE(shrunk.has_value());
  EXPECT_EQ(shrunk.error().code, ErrorCode::kInvalidArgument);
}

TEST(PageTable, KeepsEveryListInOrder) {
  PageTable table(2);
  table.append(std::array<PageId, 6>{0, 1, 2, 10, 11, 12});
  table.append(std::array<PageId, 4>{3, 4, 13, 14});
  ASSERT_EQ(table.columns(), 5);
  for (int32_t c = 0; c < 5; ++c) {
    EXPECT_EQ(table.at(0, c), c);
    EXPECT_EQ(table.at(1, c), 10 + c);
    EXPECT_EQ(table.data()[table.stride() + c], 10 + c);
  }
  std::vector<PageId> out;
  table.cut_front(2, out);
  EXPECT_EQ(out, (std::vector<PageId>{0, 1, 10, 11}));
  out.clear();
  table.cut_back(1, out);
  EXPECT_EQ(out, (std::vector<PageId>{3, 4, 13, 14}));
  EXPECT_EQ(table.at(1, 0), 12);
  EXPECT_EQ(table.pages(), 2);

  PageTable front(2);
  front.append(std::array<PageId, 4>{5, 6, 15, 16});
  table.prepend(front);
  EXPECT_EQ(front.pages(), 0);
  out.clear();
  table.cut_front(3, out);
  EXPECT_EQ(out, (std::vector<PageId>{5, 6, 2, 15, 16, 12}));
  table.prepend(front);
  EXPECT_EQ(table.pages(), 0);
}

}  // namespace
}  // namespace coppice::kv
