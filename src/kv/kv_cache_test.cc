#include <gtest/gtest.h>

#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

TEST(KvCache, ALonePromptIsComputedInSlicesAndDecoded) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(10));
  EXPECT_EQ(rig.progress(a).tokens, 10);
  EXPECT_EQ(rig.computed(a), 0);
  EXPECT_EQ(rig.reserve(a, 3), 3);
  EXPECT_EQ(rig.columns_held(), 1);
  EXPECT_EQ(rig.run(), 3);
  EXPECT_EQ(rig.reserve(a, 100), 7);  // it stops at the planned end
  rig.run();
  EXPECT_EQ(rig.computed(a), 10);
  rig.append(a, 77);
  EXPECT_EQ(rig.finish(a), 1);
  EXPECT_EQ(rig.columns_held(), 3);
  rig.close(a);
  EXPECT_EQ(rig.held(counting(10) + Tokens{77, 78}), 11);
  EXPECT_EQ(rig.cache->stats().references, 0);
}

TEST(KvCache, ASecondPromptSharesToTheTokenAndEvaluatesTheRest) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(10));
  EXPECT_EQ(rig.finish(a), 10);
  // Ten tokens in common: two full pages are shared, two slots copied.
  const SequenceId b = rig.open(counting(10) + Tokens{50, 51, 52});
  EXPECT_EQ(rig.computed(b), 10);
  EXPECT_EQ(rig.finish(b), 3);
  EXPECT_EQ(rig.cache->stats().tokens_copied, 2);
  EXPECT_EQ(rig.columns_held(), 3 + 2);
}

TEST(KvCache, TheLastTokenIsAlwaysEvaluatedAndThenHeldOnce) {
  Rig rig(16);
  rig.finish_open(counting(8));
  const SequenceId b = rig.open(counting(8));
  EXPECT_EQ(rig.computed(b), 7);
  EXPECT_EQ(rig.finish(b), 1);
  EXPECT_EQ(rig.columns_held(), 2);  // its page became equal to the other's and went back
}

TEST(KvCache, AFollowerWaitsForTheWriterAndTakesOverWhenItCloses) {
  Rig rig(16);
  const SequenceId a = rig.open(counting(16) + Tokens{100});
  const SequenceId b = rig.open(counting(16) + Tokens{200});
  EXPECT_FALSE(rig.blocked(a));
  EXPECT_TRUE(rig.blocked(b));
  EXPECT_FALSE(rig.reserve(b, 4).has_value());
  EXPECT_EQ(rig.reserve(a, 6), 6);
  rig.run();
  EXPECT_EQ(rig.computed(b), 6);
  EXPECT_TRUE(rig.blocked(b));
  rig.close(a);
  EXPECT_FALSE(rig.blocked(b));
  EXPECT_EQ(rig.computed(b), 6);
  EXPECT_EQ(rig.finish(b), 11);
}

}  // namespace
}  // namespace coppice::kv
