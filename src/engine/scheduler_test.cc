// The scheduler over the real cache without a model: tokens are scripted or drawn.
#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <random>
#include <utility>

#include "engine/test_harness.h"
#include "kv/test_rig.h"

namespace coppice::engine {
namespace {

constexpr int64_t kCtx = 1000;

class Stage {
 public:
  Stage(int32_t page_slots, int64_t columns, Limits limits) : backend_(page_slots) {
    const kv::Shape4 shape{page_slots, 1, 1, 1};
    kv::KvCacheOptions options{.layers = 1, .kv_heads = 1, .head_dim = 1, .kv_type = DType::kF32};
    options.budget_bytes = columns * shape.column_bytes();
    auto made = kv::KvCache::create(backend_, options, kv::least_recently_used());
    CHECK(made.has_value());
    cache = std::move(*made);
    limits.ctx = kCtx;
    limits.kv_budget = limits.kv_budget_limit = options.budget_bytes;
    scheduler.emplace(*cache, limits);
  }

  std::shared_ptr<Tape> submit(std::vector<TokenId> prompt, int64_t max_tokens, int32_t n = 1) {
    auto submission = std::make_shared<Submission>();
    submission->id = ++last_id_;
    submission->prompt = std::move(prompt);
    submission->sampling = greedy(static_cast<int32_t>(max_tokens));
    submission->sampling.n = n;
    auto tape = std::make_shared<Tape>();
    submission->observer = tape;
    auto first = std::make_unique<Sequence>(submission, 0, tokenizer_);
    for (int32_t choice = 1; choice < n; ++choice) {
      first->unborn.push_back(std::make_unique<Sequence>(submission, choice, tokenizer_));
    }
    scheduler->enqueue(std::move(first));
    return tape;
  }
  void step() {
    scheduler->admit();
    if (scheduler->reserve_rows() == 0) return;
    const kv::Step& step = cache->plan(kv::Partition::kTwoPhase);
    std::vector<Sequence*> complete;
    for (const kv::Slice& slice : step.slices) {
      Sequence& s = scheduler->find(slice.sequence);
      const int64_t end = slice.position + slice.row_end - slice.row_begin;
      if (end == std::ssize(s.tokens)) complete.push_back(&s);
    }
    cache->commit();
    for (Sequence* s : complete) grow(*s);
    cache->check_invariants();
  }

  std::function<TokenId(const Sequence&)> next_token;
  std::unique_ptr<kv::KvCache> cache;
  std::optional<Scheduler> scheduler;

 private:
  void grow(Sequence& s) {
    std::vector<std::unique_ptr<Sequence>> children = std::exchange(s.unborn, {});
    for (std::unique_ptr<Sequence>& child : children) {
      if (const auto end = take(*child)) {
        scheduler->end_unborn(*child, *end, std::nullopt);
      } else {
        scheduler->spawn(s, std::move(child));
      }
    }
    if (const auto end = take(s)) {
      scheduler->end(s, *end);
    } else {
      cache->append(s.kv, s.tokens.back());
    }
  }
  std::optional<FinishReason> take(Sequence& s) {
    return s.take(next_token(s), std::nullopt, kCtx, Clock::now());
  }

  kv::PageBackend backend_;
  ListTokenizer tokenizer_{std::vector<std::string>(256, "x")};
  RequestId last_id_ = 0;
};

// Waiting for an older sequence is no lack of room: nobody is set aside for it.
TEST(Scheduler, WhoJoinsAnotherAndThenWaitsSetsNobodyAside) {
  Stage stage(4, 100, {.max_rows = 6, .slice = 6, .max_live = 4});
  stage.next_token = [](const Sequence& s) {
    const auto next = static_cast<TokenId>(s.tokens.size() + 1);
    return s.result.id == 4 && next > 4 ? TokenId{9} : next;  // the last one parts after 4
  };
  // The first and the last write 1 2 3 4 at the same pace, so that the first hangs below the last's
  // page; meanwhile the second takes all rows from the third, whose prompt begins alike.
  std::vector<std::shared_ptr<Tape>> tapes;
  tapes.push_back(stage.submit({1, 2}, 8));
  tapes.push_back(stage.submit(token_noise(1, 12, 100, 200), 8));
  tapes.push_back(stage.submit({1, 2, 3, 4, 5, 6, 7, 8}, 8));
  tapes.push_back(stage.submit({1, 2, 3}, 8));
  while (!stage.scheduler->idle()) stage.step();
  EXPECT_EQ(stage.scheduler->preemptions(), 0);
}

// Requests that come and go at random and share beginnings.
class Company {
 public:
  // Prompts of up to seven pages, answers of up to `longest`, room for `columns` pages.
  Company(uint64_t seed, int32_t page_slots, int64_t longest, int64_t columns)
      : random_(seed),
        page_slots_(page_slots),
        longest_(longest),
        stage_(page_slots, columns, random_limits()) {
    stage_.next_token = [this](const Sequence&) { return static_cast<TokenId>(pick(0, 1)); };
    for (std::vector<TokenId>& base : bases_) base = random_tokens(pick(1, 5 * page_slots));
  }

  void run(int steps) {
    const Scheduler& scheduler = *stage_.scheduler;
    for (int i = 0; i < steps; ++i) {
      while (scheduler.live().size() + scheduler.waiting() < 10 && chance(67)) submit();
      if (chance(6) && !scheduler.live().empty()) cancel_one();
      stage_.step();
    }
    while (!scheduler.idle()) stage_.step();
  }
  // Whoever was not cancelled has all its tokens.
  void expect_whole() const {
    for (const Request& request : requests_) {
      for (int32_t choice = 0; choice < request.choices; ++choice) {
        ASSERT_TRUE(request.tape->finished(choice));
        const Result& result = request.tape->take(choice).result;
        if (result.finish_reason == FinishReason::kCancelled) continue;
        ASSERT_EQ(result.finish_reason, FinishReason::kLength);
        ASSERT_EQ(std::ssize(result.tokens), request.max_tokens);
      }
    }
  }
  int64_t preemptions() const { return stage_.scheduler->preemptions(); }

 private:
  struct Request {
    std::shared_ptr<Tape> tape;
    int64_t max_tokens;
    int32_t choices;
  };

  int64_t pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(random_);
  }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  std::vector<TokenId> random_tokens(int64_t count) {
    std::vector<TokenId> out(static_cast<size_t>(count));
    for (TokenId& token : out) token = static_cast<TokenId>(pick(0, 1));
    return out;
  }
  Limits random_limits() {
    Limits limits;
    limits.max_live = static_cast<int32_t>(pick(2, 8));
    limits.max_rows = limits.max_live + 1 + static_cast<int32_t>(pick(0, 2 * page_slots_));
    limits.slice = static_cast<int32_t>(pick(1, 2 * page_slots_));
    return limits;
  }
  void submit() {
    const std::vector<TokenId>& base = bases_[static_cast<size_t>(pick(0, 2))];
    const int64_t cut = chance(50) ? std::ssize(base) : pick(0, std::ssize(base));
    std::vector<TokenId> prompt = joined({base.begin(), base.begin() + cut},
                                         random_tokens(pick(cut > 0 ? 0 : 1, 2 * page_slots_)));
    Request request{nullptr, pick(1, longest_), chance(25) ? 3 : 1};
    request.tape = stage_.submit(std::move(prompt), request.max_tokens, request.choices);
    requests_.push_back(std::move(request));
  }
  void cancel_one() {
    const auto& live = stage_.scheduler->live();
    const size_t at = static_cast<size_t>(pick(0, std::ssize(live) - 1));
    stage_.scheduler->cancel(live[at]->submission().id);
  }

  std::mt19937_64 random_;
  int32_t page_slots_;
  int64_t longest_;
  Stage stage_;
  std::array<std::vector<TokenId>, 3> bases_;
  std::vector<Request> requests_;
};

TEST(Scheduler, WhereThereIsRoomForAllNobodyIsSetAside) {
  for (uint64_t seed = 41; seed <= 80; ++seed) {
    SCOPED_TRACE(seed);
    const int32_t page_slots = seed % 2 == 0 ? 2 : 4;
    Company company(seed, page_slots, 3 * page_slots, 1000);
    company.run(200);
    company.expect_whole();
    ASSERT_EQ(company.preemptions(), 0);
  }
}

TEST(Scheduler, WhoeverFitsAloneComesToItsEndUnderPressure) {
  constexpr int32_t kPageSlots = 16;
  constexpr int64_t kLongest = 500, kColumnsOfOne = 7 + kLongest / kPageSlots + 1;
  int64_t preemptions = 0;
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    const auto more = static_cast<int64_t>(seed * 3);
    Company company(seed, kPageSlots, kLongest, kColumnsOfOne + more);
    company.run(1500);
    company.expect_whole();
    preemptions += company.preemptions();
  }
  EXPECT_GT(preemptions, 5);
}

}  // namespace
}  // namespace coppice::engine
