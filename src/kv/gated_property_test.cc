// Random operations on gated scopes, strict and elastic, beside ungated ones: after every operation
// all invariants, in every step all that the rows see, compared with decisions made anew from the
// tokens and from what was thinned how often.
#include <random>
#include <set>

#include "kv/test_rig.h"

namespace coppice::kv {
namespace {

class GatedDriver {
 public:
  // pages: most tokens of the texts that prompts begin with; elastic: percent of the requests;
  // squeezes: changes of the budget last for a moment, and some requests are served at once.
  GatedDriver(uint64_t seed, Shape4 shape, int64_t columns, Tier tier, int64_t pages = 5,
              int elastic = 30, bool squeezes = false)
      : rng_(seed),
        shape_(shape),
        columns_(columns),
        tier_(tier),
        rig_(columns, shape, columns),
        pages_(pages),
        percent_elastic_(elastic),
        squeezes_(squeezes) {
    elastic_ = tier;
    elastic_.elastic = true;
    for (Tokens& base : bases_) base = random_tokens(pick(1, pages * shape.page_slots));
  }

  void run(int64_t operations) {
    for (int64_t i = 0; i < operations && !::testing::Test::HasFatalFailure(); ++i) {
      SCOPED_TRACE("operation " + std::to_string(i));
      operate();
      rig_.check();
      check();
    }
    if (::testing::Test::HasFatalFailure()) return;
    while (!rig_.live.empty()) close(rig_.live.begin()->first);
    thinned_ = rig_.cache->stats().tokens_thinned;
    for (const auto& [pin, pinned] : pins_) rig_.cache->unpin(pin);
    ASSERT_EQ(rig_.cache->stats().bytes_reclaimable, rig_.cache->stats().bytes_held);
    rig_.cache->flush();
    ASSERT_EQ(rig_.cache->stats().bytes_held, 0);
    ASSERT_EQ(rig_.cache->stats().nodes, 0);
  }
  int64_t rows() const { return rows_; }
  int64_t hits() const { return hits_; }
  int64_t published() const { return published_; }
  int64_t thinned() const { return thinned_; }
  int64_t thinned_hits() const { return thinned_hits_; }

 private:
  struct Kept {
    int64_t promised = 0;
    bool secure = false;
    bool reserved = false;
    bool plain = false;
    bool elastic = false;
    int64_t had = 0;  // tokens computed when last seen
  };

  int64_t pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(rng_);
  }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  Tokens random_tokens(int64_t n) {
    Tokens tokens(static_cast<size_t>(n));
    for (TokenId& t : tokens) {
      t = static_cast<TokenId>(pick(0, 1)) | (chance(4) ? kExactToken : 0);
    }
    return tokens;
  }
  Tokens random_prompt() {
    const Tokens& base = !texts_.empty() && chance(50)
                             ? texts_[static_cast<size_t>(pick(0, std::ssize(texts_) - 1))]
                             : bases_[static_cast<size_t>(pick(0, std::ssize(bases_) - 1))];
    const int64_t cut = chance(40) ? std::ssize(base) : pick(0, std::ssize(base));
    return Tokens(base.begin(), base.begin() + cut) +
           random_tokens(pick(cut == 0 ? 1 : 0, 2 * shape_.page_slots));
  }
  SequenceId random_live() {
    auto it = rig_.live.begin();
    std::advance(it, pick(0, std::ssize(rig_.live) - 1));
    return it->first;
  }
  void promises_may_break() {
    for (auto& [id, kept] : kept_) kept.secure = false;
  }

  void operate() {
    const int64_t dice = pick(1, 100);
    if (dice <= 12) return open();
    if (dice <= 14) return set_budget();
    if (dice <= 16) return pin();
    if (dice <= 17) return unpin();
    if (dice <= 20 && squeezes_) return serve();
    if (dice == 18 && chance(10)) return rig_.cache->flush();
    if (dice <= 45) return step();
    if (rig_.live.empty()) return;
    const SequenceId id = random_live();
    if (dice <= 51) return close(id);
    if (dice <= 55) return fork(id);
    if (dice <= 58) return admit(id);
    if (dice <= 68) return append(id);
    reserve(id);
  }

  void open() {
    if (rig_.live.size() >= 7) return;
    promises_may_break();
    Tokens tokens = random_prompt();
    if (chance(15)) {
      for (TokenId& t : tokens) t &= ~kExactToken;
      kept_[rig_.open(tokens)].plain = true;
      return;
    }
    std::set<int64_t> at;
    for (int64_t i = pick(0, 3); i > 0; --i) at.insert(pick(1, std::ssize(tokens)));
    const bool elastic = chance(percent_elastic_);
    const Scope scope = scope_of(elastic);
    const auto info = rig_.cache->match(scope, tokens);
    ASSERT_LE(info.held, info.planned);
    const SequenceId id =
        rig_.open_gated(tokens, elastic ? elastic_ : tier_, {at.begin(), at.end()}, scope);
    kept_[id].elastic = elastic;
    thinned_hits_ += rig_.cache->footprint(id).thinned.empty() ? 0 : 1;
    hits_ += rig_.computed(id);
    kept_[id].had = rig_.computed(id);
    ASSERT_LE(rig_.computed(id), info.planned);
  }
  void fork(SequenceId id) {
    if (rig_.live.size() >= 7 || kept_.at(id).reserved) return;
    promises_may_break();
    const bool whole = rig_.computed(id) == rig_.progress(id).tokens;
    const SequenceId fork = rig_.fork(id);
    kept_[fork].plain = kept_.at(id).plain;
    kept_[fork].elastic = kept_.at(id).elastic;
    if (whole) {
      ASSERT_EQ(rig_.computed(fork), rig_.progress(fork).tokens);
    }
    kept_[fork].had = rig_.computed(fork);
  }
  void append(SequenceId id) {
    if (std::ssize(rig_.live.at(id).tokens) > (pages_ + 7) * shape_.page_slots) return close(id);
    // What was generated is told from the prompt by the step that evaluated it.
    if (!tier_.decode_gate && rig_.computed(id) < rig_.progress(id).tokens) return;
    rig_.append(id, static_cast<TokenId>(pick(0, 1)));
  }
  void close(SequenceId id) {
    const Rig::Live path = rig_.live.at(id);
    if (texts_.size() > 8) texts_.erase(texts_.begin());
    if (!kept_.at(id).plain) texts_.push_back(path.tokens);
    // Rows of the step under way belong to no boundary yet.
    const bool reserved =
        std::ranges::any_of(kept_, [](const auto& k) { return k.second.reserved; });
    const int64_t computed = rig_.computed(id);
    rig_.close(id);
    if (!reserved && !kept_.at(id).plain && tier_.decode_gate && roomy()) {
      ASSERT_GE(rig_.held_gated(path.tokens, path.scope), computed);
      ++published_;
    }
    kept_.erase(id);
  }
  // Nothing was ever taken for want of room.
  bool roomy() {
    const KvStats s = rig_.cache->stats();
    return s.overlays_freed == 0 && s.tokens_reclaimed == 0;
  }
  void admit(SequenceId id) {
    const int64_t total =
        std::max<int64_t>(pick(1, 6 * shape_.page_slots), std::ssize(rig_.live.at(id).tokens));
    if (!rig_.cache->admit(id, total)) return;
    kept_.at(id).promised = total;
    kept_.at(id).secure = true;
  }
  void pin() {
    if (pins_.size() >= 2) return;
    promises_may_break();
    const Tokens tokens = random_prompt();
    const Scope scope = scope_of(chance(percent_elastic_));
    const auto pin = rig_.cache->pin(scope, tokens, 0);
    ASSERT_EQ(pin.tokens, rig_.held_gated(tokens, scope));
    if (pin.tokens == 0) return;
    const Tokens pinned(tokens.begin(), tokens.begin() + pin.tokens);
    pins_[pin.id] = {scope, pinned, rig_.cache->match(scope, pinned).epoch};
  }
  void unpin() {
    if (pins_.empty()) return;
    ASSERT_TRUE(rig_.cache->unpin(pins_.begin()->first));
    pins_.erase(pins_.begin());
  }
  void set_budget() {
    promises_may_break();
    if (squeezes_) return squeeze();
    const int64_t columns = chance(50) ? columns_ : pick(1, columns_);
    const KvStats before = rig_.cache->stats();
    const bool fits = rig_.cache->set_budget(columns * shape_.column_bytes());
    if (!fits) {
      ASSERT_EQ(rig_.cache->stats().bytes_held, before.bytes_held - before.bytes_reclaimable);
    }
    ASSERT_EQ(fits, rig_.cache->stats().bytes_held <= columns * shape_.column_bytes());
  }

  // A text and a little more, to the end.
  void serve() {
    if (rig_.live.size() >= 7) return;
    promises_may_break();
    const Tokens& base = bases_[static_cast<size_t>(pick(0, std::ssize(bases_) - 1))];
    const Scope scope = scope_of(true);
    const SequenceId id = rig_.open_gated(base + random_tokens(pick(1, shape_.page_slots)),
                                          elastic_, {std::ssize(base)}, scope);
    kept_[id].elastic = true;
    thinned_hits_ += rig_.cache->footprint(id).thinned.empty() ? 0 : 1;
    while (rig_.live.contains(id) && rig_.computed(id) < rig_.progress(id).tokens &&
           !rig_.blocked(id) && !::testing::Test::HasFatalFailure()) {
      reserve(id);
      step();
    }
    if (rig_.live.contains(id)) close(id);
  }
  // Pressure for a moment, and not so much that nothing is left.
  void squeeze() {
    rig_.cache->set_budget(rig_.cache->stats().bytes_held * pick(60, 99) / 100);
    rig_.check();
    rig_.cache->set_budget(columns_ * shape_.column_bytes());
  }

  void reserve(SequenceId id) {
    if (kept_.at(id).reserved) return;
    const Progress before = rig_.progress(id);
    if (before.computed == before.tokens) return;
    if (!kept_.at(id).plain) {
      ASSERT_GE(before.computed, kept_.at(id).had) << "sequence " << id << " lost tokens";
    }
    if (kept_.at(id).promised == 0) promises_may_break();
    const int32_t n = chance(20) ? 1000 : static_cast<int32_t>(pick(1, 2 * shape_.page_slots));
    const auto rows = rig_.reserve(id, n);
    if (rows) {
      ASSERT_FALSE(before.blocked);
      ASSERT_GE(*rows, 1);
      ASSERT_LE(*rows, n);
      kept_.at(id).reserved = true;
      return;
    }
    if (rig_.progress(id).blocked) return;
    ASSERT_FALSE(kept_.at(id).secure &&
                 std::ssize(rig_.live.at(id).tokens) <= kept_.at(id).promised)
        << "a promise was broken";
    if (rig_.live.size() > 1) return close(rig_.live.rbegin()->first);
    if (!kept_.at(id).plain && pins_.empty()) {
      const int64_t needed = rig_.cache->worst_case_bytes(std::ssize(rig_.live.at(id).tokens),
                                                          {.tier = &tier_, .boundaries = kMany});
      ASSERT_GT(needed, rig_.cache->stats().pages_total * rig_.cache->stats().page_bytes)
          << "a lone sequence that fits got no room";
    }
    close(id);
  }

  void step() {
    if (std::ranges::none_of(kept_, [](const auto& k) { return k.second.reserved; }) && chance(95))
      return;
    const Partition partition = chance(50) ? Partition::kTwoPhase : Partition::kPerSequence;
    if (chance(20)) rig_.check_plan(rig_.cache->plan(Partition::kTwoPhase));
    Step& step = rig_.cache->plan(partition);
    rig_.check_plan(step);
    if (chance(10)) {
      rig_.cache->abandon();
    } else {
      rig_.compute(step);
      rows_ += step.plan.rows;
      for (const Slice& slice : step.slices) {
        kept_.at(slice.sequence).had = slice.position + slice.row_end - slice.row_begin;
        const bool whole = kept_.at(slice.sequence).had == rig_.progress(slice.sequence).tokens;
        if (chance(5) && (whole || tier_.decode_gate)) rig_.append(slice.sequence, 1);
      }
      rig_.cache->commit();
    }
    for (auto& [id, kept] : kept_) kept.reserved = false;
  }

  void check() {
    const KvStats stats = rig_.cache->stats();
    ASSERT_EQ(stats.live_sequences, std::ssize(rig_.live));
    ASSERT_EQ(stats.pins, std::ssize(pins_));
    int64_t pending = 0, waiting = 0;
    for (const auto& [id, l] : rig_.live) {
      const Progress p = rig_.progress(id);
      ASSERT_EQ(p.tokens, std::ssize(l.tokens));
      pending += p.computed < p.tokens ? 1 : 0;
      waiting += p.blocked ? 1 : 0;
    }
    ASSERT_TRUE(pending == 0 || waiting < pending) << "everyone waits";
    for (const auto& [id, pin] : pins_) {
      const MatchInfo held = rig_.cache->match(pin.scope, pin.tokens);
      ASSERT_EQ(held.held, std::ssize(pin.tokens)) << "pin " << id;
      ASSERT_EQ(held.epoch, pin.epoch) << "pin " << id;
    }
  }

  static Scope scope_of(bool elastic) { return elastic ? "e" : "g"; }
  struct Pinned {
    Scope scope;
    Tokens tokens;
    int32_t epoch = 0;
  };

  static inline const std::vector<int64_t> kMany = {1, 2, 3, 4, 5, 6, 7, 8};
  std::mt19937_64 rng_;
  Shape4 shape_;
  int64_t columns_;
  Tier tier_, elastic_;
  Rig rig_;
  int64_t pages_;
  int percent_elastic_;
  bool squeezes_;
  std::array<Tokens, 4> bases_;
  std::vector<Tokens> texts_;
  std::map<SequenceId, Kept> kept_;
  std::map<PinId, Pinned> pins_;
  int64_t rows_ = 0, hits_ = 0, published_ = 0, thinned_ = 0, thinned_hits_ = 0;
};

TEST(GatedCacheProperty, RandomOperations) {
  const Shape4 shapes[] = {{4, 2, 2, 2}, {2, 1, 3, 2}, {8, 1, 2, 4}};
  int64_t rows = 0, hits = 0, published = 0;
  for (uint64_t round = 0; round < 18 && !HasFatalFailure(); ++round) {
    Tier tier;
    tier.rule.threshold = std::array{-2.0f, 0.0f, 2.0f}[round % 3];
    tier.rule.window = std::array{1, 5, 9, 16}[round % 4];
    tier.rule.sinks = std::array{0, 3}[round % 2];
    tier.decode_gate = round % 5 != 4;
    tier.memory_floats = round % 2 == 0 ? 0 : 7;
    SCOPED_TRACE("round " + std::to_string(round));
    GatedDriver driver(soak().seed * 1000 + round, shapes[round % 3],
                       std::array{24, 60, 400}[round / 3 % 3], tier);
    driver.run(soak().operations / 18);
    rows += driver.rows();
    hits += driver.hits();
    published += driver.published();
  }
  EXPECT_GT(rows, soak().operations / 10);
  EXPECT_GT(hits, soak().operations / 50);
  EXPECT_GT(published, 50);
}

// Longer texts, small windows, little room: much is thinned, and started from.
TEST(GatedCacheProperty, RandomOperationsOnThinnedRuns) {
  const Shape4 shapes[] = {{4, 2, 2, 2}, {2, 1, 3, 2}, {8, 1, 2, 4}};
  int64_t thinned = 0, thinned_hits = 0;
  for (uint64_t round = 0; round < 12 && !HasFatalFailure(); ++round) {
    Tier tier;
    tier.rule.threshold = std::array{-4.0f, -2.0f}[round % 2];
    tier.rule.window = std::array{1, 3, 6}[round % 3];
    tier.rule.sinks = std::array{0, 3}[round % 2];
    tier.decode_gate = round % 5 != 4;
    tier.memory_floats = round % 4 == 0 ? 7 : 0;
    SCOPED_TRACE("round " + std::to_string(round));
    GatedDriver driver(soak().seed * 2000 + round, shapes[round % 3],
                       std::array{150, 500}[round / 6], tier, 24, 80, true);
    driver.run(soak().operations / 24);
    thinned += driver.thinned();
    thinned_hits += driver.thinned_hits();
  }
  EXPECT_GT(thinned, soak().operations / 10);
  EXPECT_GT(thinned_hits, soak().operations / 2000);
  std::printf("%lld tokens thinned, %lld starts behind thinned runs\n",
              static_cast<long long>(thinned), static_cast<long long>(thinned_hits));
}

}  // namespace
}  // namespace coppice::kv
