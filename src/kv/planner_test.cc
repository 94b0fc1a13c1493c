#include "kv/planner.h"

#include <gtest/gtest.h>

#include <memory>

#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

using ops::Segment;

// A tree made by hand: two lists, pages of four slots.
struct HandMade {
  static constexpr int32_t kLists = 2;
  Node root{kLists};
  PageId next_page = 0;

  // `computed` tokens are held; pages for `slots` of them and of the step's rows.
  Node* add(Node* parent, int64_t size, int64_t computed, int64_t slots, SequenceId owner = 0) {
    Node* node = parent->children.emplace_back(std::make_unique<Node>(kLists)).get();
    node->parent = parent;
    node->start = parent->end();
    node->tokens = counting(size, static_cast<TokenId>(node->start));
    node->computed = computed;
    node->owner = owner;
    std::vector<PageId> ids(static_cast<size_t>(columns_for(slots, 4) * kLists));
    for (PageId& id : ids) id = next_page++;
    node->pages.append(ids);
    return node;
  }
};

Reservation rows_of(SequenceId id, Node* tail, const Tokens& tokens, int64_t position, int32_t n) {
  return {id, tail,
          std::span(tokens).subspan(static_cast<size_t>(position), static_cast<size_t>(n)),
          position, n};
}

// The picture in attention_plan.h: company prompt, two teams, three leaves.
TEST(Planner, DrawsThePictureOfTheHeader) {
  HandMade tree;
  const Tokens tokens = counting(40);
  Node* company = tree.add(&tree.root, 8, 8, 8);
  Node* team_a = tree.add(company, 4, 4, 4);
  Node* leaf0 = tree.add(team_a, 3, 1, 3, 10);
  Node* leaf1 = tree.add(team_a, 2, 1, 2, 11);
  Node* team_b = tree.add(company, 8, 8, 8);
  Node* leaf2 = tree.add(team_b, 6, 3, 6, 12);
  const std::vector<Reservation> reservations = {rows_of(10, leaf0, tokens, 13, 2),
                                                 rows_of(12, leaf2, tokens, 19, 3),
                                                 rows_of(11, leaf1, tokens, 13, 1)};
  Planner planner;
  Step step;
  planner.plan(reservations, Partition::kTwoPhase, 1, step);
  EXPECT_EQ(step.plan.rows, 6);
  ASSERT_EQ(step.slices.size(), 3u);
  EXPECT_EQ(step.slices[0].sequence, 10u);
  EXPECT_EQ(step.slices[1].sequence, 11u);  // depth first: beside its sibling
  EXPECT_EQ(step.slices[2].sequence, 12u);
  // Parts: company, team A, leaf 0, leaf 1, team B, leaf 2.
  EXPECT_EQ(
      step.plan.segments,
      (std::vector<Segment>{{0, 6, 0, 1}, {0, 3, 1, 2}, {0, 2, 2, 3}, {2, 3, 3, 4}, {3, 6, 4, 6}}));
  ASSERT_EQ(step.plan.parts.size(), 6u);
  EXPECT_EQ(step.plan.parts[0].pages, company->pages.data());
  EXPECT_EQ(step.plan.parts[0].list_pages(1)[1], company->pages.at(1, 1));
  EXPECT_EQ(step.plan.parts[4].start, 8);
  EXPECT_EQ(step.plan.parts[4].count, 8);
  EXPECT_EQ(step.plan.parts[5].start, 16);
  EXPECT_EQ(step.plan.parts[5].count, 6);  // this step's rows are visible to themselves
  EXPECT_EQ(step.positions, (std::vector<int32_t>{13, 14, 13, 19, 20, 21}));
  EXPECT_EQ(step.plan.row_last, (std::vector<int32_t>{14, 15, 14, 20, 21, 22}));
  EXPECT_EQ(step.plan.targets[0], (ops::KvTarget{2, 13}));
  EXPECT_EQ(step.plan.targets[2], (ops::KvTarget{3, 13}));
  EXPECT_EQ(step.plan.targets[5], (ops::KvTarget{5, 21}));

  planner.plan(reservations, Partition::kPerSequence, 1, step);
  EXPECT_EQ(step.plan.segments, (std::vector<Segment>{{0, 2, 0, 3}, {2, 3, 3, 6}, {3, 6, 6, 9}}));
  EXPECT_EQ(step.plan.parts[3], step.plan.parts[0]);
  EXPECT_EQ(step.plan.targets[2], (ops::KvTarget{5, 13}));
}

TEST(Planner, WithNothingSharedBothPartitionsAreEqual) {
  HandMade tree;
  const Tokens tokens = counting(40);
  Node* a = tree.add(&tree.root, 8, 8, 8);
  Node* b = tree.add(a, 12, 5, 12, 10);
  Node* c = tree.add(&tree.root, 5, 0, 5, 11);
  tree.add(a, 4, 4, 4);  // retained, without rows
  const std::vector<Reservation> reservations = {rows_of(10, b, tokens, 13, 7),
                                                 rows_of(11, c, tokens, 0, 5)};
  Planner planner;
  Step two_phase, per_sequence;
  planner.plan(reservations, Partition::kTwoPhase, 2, two_phase);
  planner.plan(reservations, Partition::kPerSequence, 2, per_sequence);
  EXPECT_EQ(two_phase.plan, per_sequence.plan);
  EXPECT_EQ(two_phase.plan.segments, (std::vector<Segment>{{0, 7, 0, 2}, {7, 12, 2, 3}}));
}

TEST(Planner, ASliceMayCrossNodesAndEmptyOnesAreNoPart) {
  HandMade tree;
  const Tokens tokens = counting(40);
  Node* a = tree.add(&tree.root, 8, 2, 8);
  Node* b = tree.add(a, 4, 0, 4);
  Node* c = tree.add(b, 6, 0, 3, 10);
  tree.add(b, 2, 0, 0, 11);  // a follower without rows
  Planner planner;
  Step step;
  const std::vector<Reservation> across = {rows_of(10, c, tokens, 2, 13)};
  planner.plan(across, Partition::kTwoPhase, 1, step);
  EXPECT_EQ(step.plan.segments, (std::vector<Segment>{{0, 13, 0, 3}}));
  EXPECT_EQ(step.plan.targets[5], (ops::KvTarget{0, 7}));
  EXPECT_EQ(step.plan.targets[6], (ops::KvTarget{1, 8}));
  EXPECT_EQ(step.plan.targets[12], (ops::KvTarget{2, 14}));
  EXPECT_EQ(step.plan.parts[2].count, 3);

  const std::vector<Reservation> first = {rows_of(10, c, tokens, 2, 4)};
  planner.plan(first, Partition::kTwoPhase, 1, step);
  ASSERT_EQ(step.plan.parts.size(), 1u);
  EXPECT_EQ(step.plan.parts[0].count, 6);
}

TEST(Planner, AnEmptyStepIsAnEmptyPlan) {
  Planner planner;
  Step step;
  planner.plan({}, Partition::kTwoPhase, 1, step);
  EXPECT_EQ(step.plan.rows, 0);
  EXPECT_TRUE(step.plan.segments.empty());
  EXPECT_TRUE(step.plan.parts.empty());
}

TEST(Planner, GrowsNothingOnceWarm) {
  Rig rig(64);
  std::vector<SequenceId> ids;
  for (TokenId i = 0; i < 8; ++i) {
    ids.push_back(rig.open(counting(20) + Tokens{100 + i}));
    rig.finish(ids.back());
  }
  const void* before = nullptr;
  for (TokenId t = 0; t < 4; ++t) {
    for (SequenceId id : ids) {
      rig.append(id, t);
      rig.reserve(id, 1);
    }
    const Step& step = rig.cache->plan(Partition::kTwoPhase);
    EXPECT_EQ(step.plan.segments.size(), 9u);
    if (before != nullptr) {
      EXPECT_EQ(step.plan.parts.data(), before);
    }
    before = step.plan.parts.data();
    rig.run();
  }
}

}  // namespace
}  // namespace coppice::kv
