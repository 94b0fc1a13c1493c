// Random operations on the cache beside the naive model; every invariant after every operation.
#include <array>
#include <random>

#include "kv/naive_model.h"

namespace coppice::kv {
namespace {

class Driver {
 public:
  Driver(uint64_t seed, Shape4 shape, int64_t columns)
      : rng_(seed), shape_(shape), columns_(columns), rig_(columns, shape, columns) {
    for (Tokens& base : bases_) base = random_tokens(pick(1, 4 * shape.page_slots));
  }

  void run(int64_t operations) {
    for (int64_t i = 0; i < operations && !::testing::Test::HasFatalFailure(); ++i) {
      SCOPED_TRACE("operation " + std::to_string(i));
      reclaimed_ = rig_.cache->stats().tokens_reclaimed;
      operate();
      follow_reclaim();
      check();
    }
    if (!::testing::Test::HasFatalFailure()) finish();
  }
  int64_t rows() const { return rows_; }
  int64_t steps() const { return steps_; }

 private:
  struct Kept {            // beside the rig's own record of a live sequence
    bool whole = false;    // it evaluated, or shares with who evaluated, its last token
    int64_t promised = 0;  // tokens, by the last admit() that succeeded
    bool secure = false;   // and nothing happened since that may break the promise
    int64_t own = 0;       // leading tokens that nothing may take from it
    int32_t rows = 0;      // reserved in this step
    int64_t last = 0;      // position of its last token when they were
  };
  struct PinnedPath {
    Rig::Live path;
    double expires;
  };

  int64_t pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(rng_);
  }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  Tokens random_tokens(int64_t n) {
    Tokens tokens(static_cast<size_t>(n));
    for (TokenId& t : tokens) t = static_cast<TokenId>(pick(0, 1));
    return tokens;
  }
  Scope random_scope() { return chance(90) ? "m" : "other"; }
  // Part of a known text, mostly followed by something else.
  Tokens random_prompt() {
    const Tokens& base = !texts_.empty() && chance(40)
                             ? texts_[static_cast<size_t>(pick(0, std::ssize(texts_) - 1))]
                             : bases_[static_cast<size_t>(pick(0, std::ssize(bases_) - 1))];
    const int64_t cut = chance(30) ? std::ssize(base) : pick(0, std::ssize(base));
    Tokens tokens = Tokens(base.begin(), base.begin() + cut) +
                    random_tokens(pick(cut == 0 ? 1 : 0, 2 * shape_.page_slots));
    return tokens;
  }
  SequenceId random_live() {
    auto it = rig_.live.begin();
    std::advance(it, pick(0, std::ssize(rig_.live) - 1));
    return it->first;
  }
  int64_t expected(SequenceId id) const {
    const Rig::Live& l = rig_.live.at(id);
    const int64_t all = std::ssize(l.tokens);
    return std::min(model_.held(l.hashes), kept_.at(id).whole ? all : all - 1);
  }

  void operate() {
    const int64_t dice = pick(1, 100);
    if (dice <= 12) return open();
    if (dice <= 14) return set_budget();
    if (dice <= 17) return pin();
    if (dice <= 19) return unpin();
    if (dice <= 20) return expire();
    if (dice <= 21) return match();
    if (dice == 22 && chance(10)) return rig_.cache->flush();
    if (dice <= 50) return step();
    if (rig_.live.empty()) return;
    const SequenceId id = random_live();
    if (dice <= 56) return close(id);
    if (dice <= 60) return fork(id);
    if (dice <= 62) return admit(id);
    if (dice <= 72) return append(id);
    reserve(id);
  }

  void promises_may_break() {
    for (auto& [id, kept] : kept_) kept.secure = false;
  }

  void open() {
    if (rig_.live.size() >= 7) return;
    promises_may_break();
    const SequenceId id = rig_.open(random_prompt(), random_scope());
    kept_[id] = {};
  }
  void fork(SequenceId id) {
    if (rig_.live.size() >= 7) return;
    promises_may_break();
    const SequenceId fork = rig_.fork(id);
    const Kept& original = kept_.at(id);
    kept_[fork] = {.whole = original.whole,
                   .own = original.own / shape_.page_slots * shape_.page_slots};
  }
  void append(SequenceId id) {
    if (std::ssize(rig_.live.at(id).tokens) > 10 * shape_.page_slots) return close(id);
    if (!kept_.at(id).whole && !chance(5)) return;
    rig_.append(id, static_cast<TokenId>(pick(0, 1)));
    kept_.at(id).whole = false;
  }
  void close(SequenceId id) {
    if (texts_.size() > 8) texts_.erase(texts_.begin());
    texts_.push_back(rig_.live.at(id).tokens);
    rig_.close(id);
    kept_.erase(id);
    std::erase(reserved_, id);
  }
  void admit(SequenceId id) {
    const int64_t total =
        std::max<int64_t>(pick(1, 6 * shape_.page_slots), std::ssize(rig_.live.at(id).tokens));
    if (!rig_.cache->admit(id, total)) return;
    kept_.at(id).promised = total;
    kept_.at(id).secure = true;
  }
  void match() {
    const Scope scope = random_scope();
    const Tokens tokens = random_prompt();
    const MatchInfo info = rig_.cache->match(scope, tokens);
    const std::vector<uint64_t> hashes = prefix_hashes(scope, tokens);
    ASSERT_EQ(info.held, model_.held(hashes));
    int64_t planned = info.held;
    for (const auto& [id, l] : rig_.live) {
      const auto [a, b] = std::ranges::mismatch(hashes, l.hashes);
      planned = std::max<int64_t>(planned, a - hashes.begin());
    }
    ASSERT_EQ(info.planned, planned);
  }
  void pin() {
    if (pins_.size() >= 3) return;
    const Scope scope = random_scope();
    const Tokens tokens = random_prompt();
    promises_may_break();
    const double ttl = chance(50) ? 0 : 3;
    const auto pin = rig_.cache->pin(scope, tokens, ttl);
    Rig::Live path{scope, tokens, prefix_hashes(scope, tokens)};
    ASSERT_EQ(pin.tokens, model_.held(path.hashes));
    if (pin.tokens == 0) return;
    path.hashes.resize(static_cast<size_t>(pin.tokens));
    pins_[pin.id] = {path, ttl > 0 ? now_ + ttl : 1e300};
  }
  void unpin() {
    if (pins_.empty()) return;
    const PinId id = pins_.begin()->first;
    rig_.cache->unpin(id);
    ASSERT_FALSE(rig_.cache->unpin(id));
    pins_.erase(id);
  }
  void expire() {
    rig_.cache->expire(++now_);
    std::erase_if(pins_, [&](const auto& pin) { return pin.second.expires <= now_; });
  }
  void set_budget() {
    promises_may_break();
    columns_now_ = chance(50) ? columns_ : pick(1, columns_);
    const bool fits = rig_.cache->set_budget(columns_now_ * shape_.column_bytes());
    ASSERT_EQ(fits, rig_.columns_held() <= columns_now_);
    const bool pins_fit = rig_.cache->pinned_bytes() <= columns_now_ * shape_.column_bytes();
    ASSERT_TRUE(pins_fit || !fits);
    ASSERT_TRUE(fits || !pins_fit || !rig_.live.empty());
  }

  void reserve(SequenceId id) {
    if (kept_.at(id).rows > 0) return;
    const Progress before = rig_.progress(id);
    if (before.computed == before.tokens) return;
    const int32_t n = chance(20) ? 1000 : static_cast<int32_t>(pick(1, 2 * shape_.page_slots));
    if (kept_.at(id).promised == 0) promises_may_break();  // it may join what was reclaimable
    const std::optional<int32_t> rows = rig_.reserve(id, n);
    follow_reclaim();
    if (!rows) {
      const Progress after = rig_.progress(id);
      if (!after.blocked) return no_room(id);
      ASSERT_EQ(after.computed, before.computed);  // blocked only now: it may have joined others
      return;
    }
    ASSERT_FALSE(before.blocked);
    ASSERT_GE(*rows, 1);
    ASSERT_LE(*rows, std::min<int64_t>(n, before.tokens - before.computed));
    kept_.at(id).rows = *rows;
    kept_.at(id).own = before.computed;
    kept_.at(id).last = before.tokens - 1;
    reserved_.push_back(id);
  }

  // True only if all that is held is in use (or promised); then the youngest makes room.
  void no_room(SequenceId id) {
    const bool promises =
        std::ranges::any_of(kept_, [](const auto& k) { return k.second.promised > 0; });
    const Kept& kept = kept_.at(id);
    ASSERT_FALSE(kept.secure && std::ssize(rig_.live.at(id).tokens) <= kept.promised)
        << "a promise was broken";
    if (!promises) {
      std::unordered_set<uint64_t> used;
      for (const auto& [other, l] : rig_.live) used.insert(l.hashes.begin(), l.hashes.end());
      for (const auto& [pin, p] : pins_) {
        used.insert(p.path.hashes.begin(), p.path.hashes.end());
      }
      int64_t idle = 0;
      for (const auto& hash : model_.all()) idle += used.contains(hash) ? 0 : 1;
      // Behind a pin the rest of its page, behind a live branch nothing.
      ASSERT_LE(idle, std::ssize(pins_) * (shape_.page_slots - 1));
      ASSERT_LE(rig_.cache->stats().pages_free, 0);
    }
    if (rig_.live.size() > 1) return close(rig_.live.rbegin()->first);
    ASSERT_TRUE(!pins_.empty() ||
                rig_.cache->worst_case_bytes(std::ssize(rig_.live.at(id).tokens)) >
                    columns_now_ * shape_.column_bytes())
        << "a lone sequence that fits got no room";
    close(id);
  }

  void step() {
    if (reserved_.empty() && chance(95)) return;
    const Partition partition = chance(50) ? Partition::kTwoPhase : Partition::kPerSequence;
    const Partition other =
        partition == Partition::kTwoPhase ? Partition::kPerSequence : Partition::kTwoPhase;
    const Step second = rig_.cache->plan(other);
    rig_.check_plan(second);
    Step& step = rig_.cache->plan(partition);
    rig_.check_plan(step);
    const ops::AttentionPlan& two_phase =
        partition == Partition::kTwoPhase ? step.plan : second.plan;
    const bool shared = std::ranges::any_of(two_phase.segments, [&](const ops::Segment& s) {
      return std::ranges::none_of(step.slices, [&](const Slice& slice) {
        return slice.row_begin == s.row_begin && slice.row_end == s.row_end;
      });
    });
    ASSERT_EQ(step.plan == second.plan, !shared);
    const bool run = !chance(10);
    if (run) {
      check_rows(step);
      rig_.compute(step);
      for (SequenceId id : reserved_) {
        if (chance(5)) {  // sampled before the commit
          rig_.append(id, 1);
          kept_.at(id).whole = false;
        }
      }
      rig_.cache->commit();
    } else {
      rig_.cache->abandon();
    }
    rows_ += step.plan.rows;
    ++steps_;
    for (SequenceId id : reserved_) kept_.at(id).rows = 0;
    if (run) learn(step);
    reserved_.clear();
  }
  // Nothing held is evaluated again, and nothing twice in a step, except last tokens.
  void check_rows(const Step& step) {
    std::unordered_set<uint64_t> in_step;
    ASSERT_EQ(step.slices.size(), reserved_.size());
    for (const Slice& slice : step.slices) {
      const Rig::Live& l = rig_.live.at(slice.sequence);
      const Kept& kept = kept_.at(slice.sequence);
      ASSERT_EQ(slice.position, kept.own);
      ASSERT_EQ(slice.row_end - slice.row_begin, kept.rows);
      for (int32_t r = slice.row_begin; r < slice.row_end; ++r) {
        const int64_t position = slice.position + r - slice.row_begin;
        if (position == kept.last) continue;
        const uint64_t h = l.hashes[static_cast<size_t>(position)];
        ASSERT_FALSE(model_.holds(h));
        ASSERT_TRUE(in_step.insert(h).second);
      }
    }
  }
  void learn(const Step& step) {
    for (const Slice& slice : step.slices) {
      const Rig::Live& l = rig_.live.at(slice.sequence);
      const int64_t length = slice.position + slice.row_end - slice.row_begin;
      model_.hold(l, length);
      if (length == std::ssize(l.tokens)) kept_.at(slice.sequence).whole = true;
      kept_.at(slice.sequence).own = length;
    }
  }

  void follow_reclaim() {
    const int64_t now = rig_.cache->stats().tokens_reclaimed;
    if (now == reclaimed_) return;
    reclaimed_ = now;
    model_.forget(
        [&](const Rig::Live& path) { return rig_.cache->match(path.scope, path.tokens).held; });
    for (const auto& [id, pin] : pins_) {
      ASSERT_EQ(model_.held(pin.path.hashes), std::ssize(pin.path.hashes)) << "pin " << id;
    }
    for (const auto& [id, l] : rig_.live) {
      ASSERT_GE(model_.held(l.hashes), kept_.at(id).own) << "sequence " << id << " lost tokens";
    }
  }

  void check() {
    rig_.check();
    const KvStats stats = rig_.cache->stats();
    ASSERT_EQ(stats.live_sequences, std::ssize(rig_.live));
    ASSERT_EQ(stats.pins, std::ssize(pins_));
    ASSERT_EQ(stats.references, std::ssize(rig_.live) + std::ssize(pins_));
    int64_t pending = 0, waiting = 0, reserved_rows = 0;
    for (const auto& [id, l] : rig_.live) {
      const Progress p = rig_.progress(id);
      ASSERT_EQ(p.tokens, std::ssize(l.tokens));
      ASSERT_EQ(p.computed, expected(id))
          << "sequence " << id << " of " << p.tokens << " tokens, whole " << kept_.at(id).whole
          << ", held " << model_.held(l.hashes) << ", rows " << kept_.at(id).rows;
      pending += p.computed < p.tokens ? 1 : 0;
      waiting += p.blocked ? 1 : 0;
      reserved_rows += kept_.at(id).rows;
      ASSERT_TRUE(!p.blocked || p.computed < p.tokens);
    }
    ASSERT_TRUE(pending == 0 || waiting < pending) << "everyone waits";
    // Memory: the budget, and what sharing promises.
    if (rig_.columns_held() > columns_now_) {
      ASSERT_LE(rig_.columns_held(), columns_before_);
    }
    columns_before_ = rig_.columns_held();
    ASSERT_LE(rig_.columns_held() * shape_.page_slots,
              std::ssize(model_.all()) + reserved_rows + 2 * (shape_.page_slots - 1) * stats.nodes);
    ASSERT_GE(stats.tokens_held, std::ssize(model_.all()));
  }

  void finish() {
    while (!rig_.live.empty()) close(random_live());
    while (true) {
      rig_.cache->flush();
      ASSERT_EQ(rig_.cache->stats().bytes_held, rig_.cache->pinned_bytes());
      if (pins_.empty()) break;
      unpin();
    }
    const KvStats stats = rig_.cache->stats();
    ASSERT_EQ(stats.pages_free, stats.pages_total);
    ASSERT_EQ(stats.bytes_held, 0);
    ASSERT_EQ(stats.references, 0);
    ASSERT_EQ(stats.pins, 0);
    ASSERT_EQ(stats.nodes, 0);
    ASSERT_EQ(stats.tokens_held, 0);
  }

  std::mt19937_64 rng_;
  Shape4 shape_;
  int64_t columns_;
  int64_t columns_now_ = columns_;
  int64_t columns_before_ = 0;
  Rig rig_;
  NaiveModel model_;
  std::map<SequenceId, Kept> kept_;
  std::map<PinId, PinnedPath> pins_;
  std::vector<SequenceId> reserved_;
  std::array<Tokens, 3> bases_;
  std::vector<Tokens> texts_;
  int64_t reclaimed_ = 0;
  double now_ = 0;
  int64_t rows_ = 0;
  int64_t steps_ = 0;
};

// Worlds of their own page size, heads and budget, from roomy to hardly enough for one; twenty in a
// row are all pairs, and the ten of a sanitized run meet every shape and every budget.
TEST(KvCacheProperty, EqualsTheNaiveModelAfterEveryOperation) {
  const std::array<Shape4, 4> shapes = {Shape4{4, 1, 1, 2}, Shape4{4, 2, 2, 2}, Shape4{16, 1, 2, 2},
                                        Shape4{2, 2, 1, 2}};
  const std::array<int64_t, 5> columns = {120, 40, 24, 14, 8};
  const int64_t per_world = 2000;
  int64_t rows = 0, steps = 0;
  for (int64_t done = 0, world = 0; done < soak().operations; done += per_world, ++world) {
    const uint64_t seed = soak().seed + static_cast<uint64_t>(world);
    const Shape4& shape = shapes[seed % shapes.size()];
    const int64_t budget = columns[seed % columns.size()];
    SCOPED_TRACE("seed " + std::to_string(seed) + ", page slots " +
                 std::to_string(shape.page_slots) + ", columns " + std::to_string(budget));
    Driver driver(seed, shape, budget);
    driver.run(std::min(per_world, soak().operations - done));
    if (HasFatalFailure()) return;
    rows += driver.rows();
    steps += driver.steps();
  }
  // The operations did happen.
  EXPECT_GT(steps, soak().operations / 20);
  EXPECT_GT(rows, steps);
}

}  // namespace
}  // namespace coppice::kv
