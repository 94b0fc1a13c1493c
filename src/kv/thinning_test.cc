// Thinning by hand: whom it touches, what it leaves, what is computed below it, what goes when.
#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

Tier tier_of(float threshold, bool elastic, int32_t window = 6) {
  return {.rule = {.threshold = threshold, .window = window, .sinks = 2}, .elastic = elastic};
}
const Tier kElastic = tier_of(-2.0f, true);  // three quarters are kept
const Tier kStrict = tier_of(-2.0f, false);
constexpr int64_t kColumns = 400;

class Thinning : public ::testing::Test {
 protected:
  SequenceId open(const Tokens& tokens, const std::vector<int64_t>& boundaries = {}) {
    return rig.open_gated(tokens, kElastic, boundaries, "e");
  }
  int64_t serve(const Tokens& tokens, const std::vector<int64_t>& boundaries = {}) {
    const SequenceId id = open(tokens, boundaries);
    const int64_t rows = rig.finish(id, 40);
    rig.close(id);
    return rows;
  }
  MatchInfo match(const Tokens& tokens) const { return rig.cache->match("e", tokens); }
  KvStats stats() const { return rig.cache->stats(); }
  // Takes pages away until something was thinned so many times more.
  void press(int64_t times = 1) {
    const int64_t before = stats().pages_thinned;
    for (int64_t seen = before; times > 0; seen = stats().pages_thinned) {
      ASSERT_GT(stats().bytes_held, 0);
      rig.cache->set_budget(stats().bytes_held - stats().page_bytes);
      rig.check();
      times -= stats().pages_thinned > seen ? 1 : 0;
    }
    relax();
  }
  void relax() { rig.cache->set_budget(kColumns * rig.shape_.column_bytes()); }

  Rig rig{kColumns};
};

TEST_F(Thinning, ComesBeforeFreeingAndServesWhatIsLeft) {
  serve(counting(120));
  const int64_t held = stats().bytes_held;
  press();
  EXPECT_EQ(match(counting(120)).held, 119);  // the last token's own run had nothing to give
  EXPECT_EQ(match(counting(120)).epoch, 1);
  EXPECT_LT(stats().bytes_held, held * 7 / 10);
  EXPECT_GT(stats().bytes_held, held * 4 / 10);
  EXPECT_EQ(stats().tokens_thinned, 119);
  const SequenceId id = open(counting(120) + counting(30, 1000));
  EXPECT_EQ(rig.finish(id, 8), 31);
  const auto footprint = rig.cache->footprint(id);
  ASSERT_EQ(footprint.thinned.size(), 1u);
  EXPECT_EQ(footprint.thinned[0].begin, 0);
  EXPECT_EQ(footprint.thinned[0].end, 119);
  EXPECT_EQ(footprint.thinned[0].epoch, 1);
  EXPECT_LT(footprint.keep_ratio[0], 0.6);
}

TEST_F(Thinning, StopsAtTheMostEpochsThenFrees) {
  serve(counting(200));
  int64_t held = stats().bytes_held;
  for (int32_t epoch = 1; epoch <= kMostEpochs; ++epoch) {
    press();
    EXPECT_EQ(match(counting(199)).epoch, epoch);
    EXPECT_LT(stats().bytes_held, held);
    held = stats().bytes_held;
  }
  rig.cache->set_budget(held - stats().page_bytes);
  rig.check();
  EXPECT_EQ(match(counting(199)).held, 0);
  EXPECT_EQ(stats().bytes_held, 0);
}

TEST_F(Thinning, StrictRequestsNeverSeeIt) {
  const SequenceId strict = rig.open_gated(counting(120), kStrict, {}, "g");
  EXPECT_EQ(rig.finish(strict), 120);  // what elastic ones hold is not theirs
  rig.close(strict);
  serve(counting(120));
  rig.cache->set_budget(stats().bytes_held / 4);
  rig.check();
  EXPECT_GT(stats().tokens_thinned, 0);
  EXPECT_EQ(rig.cache->match("g", counting(120)).epoch, 0);
  relax();
  const SequenceId again = rig.open_gated(counting(120) + counting(9, 500), kStrict, {}, "g");
  rig.finish(again);
  EXPECT_TRUE(rig.cache->footprint(again).thinned.empty());
}

TEST_F(Thinning, LivePathsAreLeftAlone) {
  serve(counting(100), {60});
  const SequenceId live = open(counting(60) + counting(40, 1000), {60});
  rig.finish(live);
  rig.cache->set_budget(0);  // all that may go goes
  rig.check();
  EXPECT_TRUE(rig.cache->footprint(live).thinned.empty());
  EXPECT_GT(stats().tokens_thinned, 0);  // the first one's end
  relax();
  rig.append(live, 7);
  rig.finish(live);
}

TEST_F(Thinning, PinsProtect) {
  serve(counting(120));
  serve(counting(120, 5000));
  const auto pin = rig.cache->pin("e", counting(119), 0);
  EXPECT_EQ(pin.tokens, 119);
  rig.cache->set_budget(0);
  rig.check();
  EXPECT_EQ(match(counting(119)).held, 119);
  EXPECT_EQ(match(counting(119)).epoch, 0);
  EXPECT_GT(stats().tokens_thinned, 0);  // the other
  EXPECT_EQ(match(counting(119, 5000)).held, 0);
  EXPECT_TRUE(rig.cache->unpin(pin.id));
  EXPECT_EQ(stats().bytes_held, 0);
}

TEST_F(Thinning, ExactTokensAndSinksStay) {
  Tokens tokens = counting(160);
  for (size_t i = 40; i < 80; ++i) tokens[i] |= kExactToken;
  serve(tokens);
  press(2);
  const SequenceId id = open(tokens + counting(5, 900));
  rig.finish(id);  // every row's view is compared with decisions made anew
  EXPECT_GE(rig.cache->footprint(id).keep_ratio[0], 42.0 / 165);
}

// Runs below a thinned one keep their places inside their pages.
TEST_F(Thinning, RunsBelowMoveDown) {
  serve(counting(90) + counting(60, 1000), {90});
  serve(counting(90) + counting(60, 2000), {90});
  for (int64_t i = 0; i < 6; ++i) {
    press();
    for (const TokenId branch : {1000, 2000}) {
      const auto end = static_cast<TokenId>(branch * 10 + i * 100);
      const Tokens tokens = counting(90) + counting(60, branch) + counting(20, end);
      const int64_t held = match(tokens).held;
      EXPECT_EQ(serve(tokens), 170 - held);
    }
  }
}

// What was computed under another version of the same prefix is another run, and both serve.
TEST_F(Thinning, RunsOfDifferentEpochsAreNotJoined) {
  serve(counting(90) + counting(60, 1000), {90});
  press(2);  // its end, then what is above
  ASSERT_GE(match(counting(90)).epoch, 1);
  const int64_t nodes = stats().nodes;
  // Parts inside the older run, which was computed under the whole prefix.
  const Tokens parted = counting(90) + counting(30, 1000) + counting(20, 4000);
  serve(parted, {90});
  EXPECT_GE(stats().nodes, nodes + 2);
  EXPECT_EQ(match(parted).held, 140);
  EXPECT_EQ(match(counting(90) + counting(60, 1000)).held, 149);
  // A third of the same epoch joins the second.
  const SequenceId third = open(counting(90) + counting(30, 1000) + counting(20, 6000));
  EXPECT_EQ(rig.computed(third), 120);
  rig.finish(third);
}

TEST_F(Thinning, TheColdGoThinnerThanTheHot) {
  for (TokenId i = 0; i < 8; ++i) serve(counting(100, 1000 * i));
  for (int32_t i = 0; i < 30; ++i) serve(counting(100) + Tokens{i});
  rig.cache->set_budget(stats().bytes_held / 2);
  rig.check();
  EXPECT_EQ(match(counting(99)).epoch, 0);
  for (TokenId i = 1; i < 8; ++i) {
    EXPECT_GT(match(counting(99, 1000 * i)).epoch, 0) << i;
    EXPECT_EQ(match(counting(99, 1000 * i)).held, 99) << i;
  }
}

}  // namespace
}  // namespace coppice::kv
