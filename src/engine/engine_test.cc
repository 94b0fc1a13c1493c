#include "coppice/engine.h"

#include <gtest/gtest.h>

#include <future>
#include <limits>
#include <thread>

#include "engine/inbox.h"
#include "engine/test_harness.h"

namespace coppice {
namespace {

using engine::golden_options;
using engine::greedy;
using engine::token_noise;

constexpr int64_t kPatience = 60000;  // ms; far beyond any machine's need

EngineOptions options() {
  EngineOptions out = golden_options("llama");
  out.max_live = 8;
  return out;
}

std::unique_ptr<Engine> open(const EngineOptions& given = options()) {
  auto engine = Engine::open(given);
  EXPECT_TRUE(engine) << engine.error().message;
  return std::move(*engine);
}

Request request_of(uint32_t seed, size_t prompt, int32_t max_tokens) {
  Request request;
  request.prompt = token_noise(seed, prompt, 3, 320);
  request.sampling = greedy(max_tokens);
  return request;
}

// Reads to the end of the first choice.
Result read_all(Outbox& outbox) {
  std::string text;
  std::vector<TokenId> tokens;
  while (auto event = outbox.next(kPatience)) {
    text += event->text;
    if (event->token) tokens.push_back(*event->token);
    if (!event->result) continue;
    EXPECT_EQ(text, event->result->text);
    EXPECT_EQ(tokens, event->result->tokens);
    return *event->result;
  }
  ADD_FAILURE() << "no result came";
  return {};
}

TEST(Engine, OpenNamesWhatIsWrong) {
  EngineOptions o = options();
  o.model = "/nowhere/at/all";
  auto engine = Engine::open(o);
  ASSERT_FALSE(engine);
  EXPECT_NE(engine.error().message.find("/nowhere/at/all"), std::string::npos);
  o = options();
  o.ctx = 4096;
  engine = Engine::open(o);
  ASSERT_FALSE(engine);
  EXPECT_NE(engine.error().message.find("2048"), std::string::npos);
  o = options();
  o.memory = 1000;
  engine = Engine::open(o);
  ASSERT_FALSE(engine);
  EXPECT_EQ(engine.error().code, ErrorCode::kTooLarge);
  o = options();
  o.memory = int64_t{8} << 20;
  o.kv_budget = int64_t{8} << 20;
  engine = Engine::open(o);
  ASSERT_FALSE(engine);
  EXPECT_NE(engine.error().message.find("--kv-budget"), std::string::npos);
}

TEST(Engine, TheBudgetStaysWithinTheMemory) {
  EngineOptions o = options();
  o.memory = int64_t{16} << 20;
  o.kv_budget.reset();
  const auto engine = open(o);
  const EngineInfo& info = engine->info();
  EXPECT_LE(info.weight_bytes + info.activation_bytes + info.kv_budget, *o.memory);
  EXPECT_GT(info.kv_budget, int64_t{1} << 20);
}

TEST(Engine, NoBudgetAndNoLimitIsBeyondTheMemory) {
  EngineOptions o = options();
  o.memory = int64_t{16} << 20;
  const auto refused = [&](const char* named) {
    const auto engine = Engine::open(o);
    ASSERT_FALSE(engine);
    EXPECT_EQ(engine.error().code, ErrorCode::kTooLarge);
    EXPECT_NE(engine.error().message.find(named), std::string::npos) << engine.error().message;
  };
  for (const int64_t budget : {*o.memory, std::numeric_limits<int64_t>::max()}) {
    o.kv_budget = budget;
    refused("--kv-budget");
  }
  o.kv_budget = int64_t{4} << 20;
  for (const int64_t limit : {*o.memory, std::numeric_limits<int64_t>::max()}) {
    o.kv_budget_limit = limit;
    refused("kv_budget_limit");
  }
  o.kv_budget_limit = int64_t{6} << 20;
  const auto engine = open(o);
  EXPECT_TRUE(engine->set_budget(int64_t{6} << 20));
  EXPECT_FALSE(engine->set_budget((int64_t{6} << 20) + 1));
}

TEST(Engine, ALimitHoldsForTheBudgetThatIsChosen) {
  EngineOptions o = options();
  o.kv_budget.reset();
  o.kv_budget_limit = int64_t{2} << 20;
  const auto engine = open(o);
  EXPECT_EQ(engine->info().kv_budget, int64_t{2} << 20);
  EXPECT_FALSE(engine->set_budget((int64_t{2} << 20) + 1));
}

TEST(Engine, LoadingReportsItsProgress) {
  int64_t last = 0, total = 0;
  const auto engine = Engine::open(options(), [&](int64_t done, int64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  });
  ASSERT_TRUE(engine);
  EXPECT_GT(total, 0);
  EXPECT_EQ(last, total);
}

TEST(Engine, RunsOnTheCallersThread) {
  const auto engine = open();
  const auto outbox = std::make_shared<Outbox>(100);
  ASSERT_TRUE(engine->submit(request_of(1, 50, 6), outbox));
  engine->run();
  EXPECT_EQ(read_all(*outbox).tokens.size(), 6u);
  EXPECT_EQ(engine->stats().finished, 1);
}

TEST(Engine, TextIsEncodedAndDecoded) {
  const auto engine = open();
  const auto outbox = std::make_shared<Outbox>(100);
  Request request;
  request.prompt = std::string("Hello there");
  request.sampling = greedy(4);
  ASSERT_TRUE(engine->submit(request, outbox));
  engine->run();
  EXPECT_GT(read_all(*outbox).usage.prompt_tokens, 1);
}

TEST(Engine, ManyThreadsSubmitAndReadTheSameAsAlone) {
  constexpr uint32_t kThreads = 4, kEach = 5;
  std::vector<std::vector<TokenId>> expected;
  for (uint32_t i = 0; i < kThreads * kEach; ++i) {
    const auto engine = open();
    const auto outbox = std::make_shared<Outbox>(100);
    ASSERT_TRUE(engine->submit(request_of(i, 40 + i, 8), outbox));
    engine->run();
    expected.push_back(read_all(*outbox).tokens);
  }
  const auto engine = open();
  engine->start();
  std::vector<std::thread> readers;
  for (uint32_t t = 0; t < kThreads; ++t) {
    readers.emplace_back([&, t] {
      std::vector<std::shared_ptr<Outbox>> outboxes;
      for (uint32_t k = 0; k < kEach; ++k) {
        outboxes.push_back(std::make_shared<Outbox>(100));
        const uint32_t i = t * kEach + k;
        EXPECT_TRUE(engine->submit(request_of(i, 40 + i, 8), outboxes.back()));
      }
      for (uint32_t k = 0; k < kEach; ++k) {
        EXPECT_EQ(read_all(*outboxes[k]).tokens, expected[t * kEach + k]);
      }
    });
  }
  for (std::thread& reader : readers) reader.join();
}

TEST(Engine, ASlowReadersRequestIsCancelled) {
  const auto engine = open();
  engine->start();
  const auto outbox = std::make_shared<Outbox>(3);
  ASSERT_TRUE(engine->submit(request_of(1, 20, 200), outbox));
  while (engine->stats().finished == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  std::string text;
  for (int i = 0; i < 3; ++i) {
    const auto event = outbox->next(0);
    ASSERT_TRUE(event);
    EXPECT_FALSE(event->result);
    text += event->text;
  }
  const auto last = outbox->next(0);
  ASSERT_TRUE(last && last->result);
  EXPECT_GT(last->text.size(), 0u);  // the fourth token's, which found no room
  EXPECT_EQ(text + last->text, last->result->text);
  EXPECT_EQ(last->result->finish_reason, FinishReason::kCancelled);
  EXPECT_EQ(last->result->tokens.size(), 4u);
}

TEST(Engine, CancelReachesARunningRequest) {
  const auto engine = open();
  engine->start();
  const auto outbox = std::make_shared<Outbox>(4000);
  const auto id = engine->submit(request_of(1, 20, 2000), outbox);
  ASSERT_TRUE(id);
  ASSERT_TRUE(outbox->next(kPatience));
  engine->cancel(*id);
  std::optional<Result> result;
  while (!result) {
    auto event = outbox->next(kPatience);
    ASSERT_TRUE(event);
    result = event->result;
  }
  EXPECT_EQ(result->finish_reason, FinishReason::kCancelled);
}

// A snapshot made after this call.
EngineStats new_stats(const Engine& engine) {
  const uint64_t before = engine.stats().version;
  while (true) {
    const EngineStats stats = engine.stats();
    if (stats.version > before) return stats;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(Engine, AdministrationRunsBetweenSteps) {
  const auto engine = open();
  engine->start();
  const auto busy = std::make_shared<Outbox>(4000);
  const auto busy_id = engine->submit(request_of(9, 20, 1500), busy);
  ASSERT_TRUE(busy_id);
  const auto cached = [&](const Request& request) {
    const auto outbox = std::make_shared<Outbox>(100);
    EXPECT_TRUE(engine->submit(request, outbox));
    return read_all(*outbox).usage.cached_tokens;
  };
  const Request pinned = request_of(1, 100, 2), other = request_of(2, 100, 2);
  EXPECT_EQ(cached(pinned), 0);
  EXPECT_EQ(cached(other), 0);
  EXPECT_EQ(cached(other), 99);
  const auto pin = engine->pin(std::get<std::vector<TokenId>>(pinned.prompt), "", 0.0);
  ASSERT_TRUE(pin);
  EXPECT_GE(pin->tokens, 96);
  engine->flush();
  EXPECT_EQ(cached(other), 0);
  EXPECT_EQ(cached(pinned), 99);
  EXPECT_TRUE(engine->unpin(pin->id));
  EXPECT_FALSE(engine->unpin(pin->id));
  engine->flush();
  EXPECT_EQ(cached(pinned), 0);
  EXPECT_TRUE(engine->set_budget(*options().kv_budget / 2));
  EXPECT_FALSE(engine->set_budget(*options().kv_budget * 2));
  EXPECT_FALSE(engine->pin({}, "", 0.0));

  engine->cancel(*busy_id);
  read_all(*busy);
  EXPECT_GT(new_stats(*engine).peak.bytes_held, 0);
  engine->reset_peak();
  EXPECT_EQ(new_stats(*engine).peak.bytes_held, 0);
}

TEST(Engine, ARequestWaitsForAPinThatRunsOut) {
  for (const bool threaded : {false, true}) {
    EngineOptions o = options();
    o.kv_budget = engine::Rig(o).core().parts().cache->worst_case_bytes(300);
    const auto engine = open(o);
    const Request first = request_of(1, 200, 2);
    ASSERT_TRUE(engine->submit(first, nullptr));
    engine->run();
    const auto pin = engine->pin(std::get<std::vector<TokenId>>(first.prompt), "", 0.4);
    ASSERT_TRUE(pin);
    EXPECT_GE(pin->tokens, 192);
    if (threaded) engine->start();
    const auto outbox = std::make_shared<Outbox>(100);
    ASSERT_TRUE(engine->submit(request_of(2, 200, 2), outbox));
    if (!threaded) engine->run();
    EXPECT_EQ(read_all(*outbox).tokens.size(), 2u);
  }
}

TEST(Engine, SnapshotsAreNewFourTimesASecondWhateverIsAsked) {
  const auto engine = open();
  engine->start();
  const auto begin = std::chrono::steady_clock::now();
  const uint64_t before = engine->stats().version;
  for (int i = 0; i < 200; ++i) engine->flush();
  const uint64_t made = engine->stats().version - before;
  const auto quarters = (std::chrono::steady_clock::now() - begin) / std::chrono::milliseconds(250);
  EXPECT_LE(made, static_cast<uint64_t>(quarters) + 2);
  // An idle engine's are new too.
  while (engine->stats().version < before + made + 2) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST(Engine, MoreThanItTakesIsRefused) {
  EngineOptions o = options();
  o.max_queued = 3;
  const auto engine = open(o);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(engine->submit(request_of(1, 10, 1), nullptr));
  const auto refused = engine->submit(request_of(1, 10, 1), nullptr);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kOverloaded);
  engine->run();
  EXPECT_TRUE(engine->submit(request_of(1, 10, 1), nullptr));
}

// Not "later": waiting would not help.
TEST(Engine, MoreChoicesThanItEverTakesAreAnInvalidArgument) {
  EngineOptions o = options();
  o.max_queued = 3;
  const auto engine = open(o);
  for (const int32_t n : {-1, 0, 4, 5000}) {
    Request request = request_of(1, 10, 1);
    request.sampling.n = n;
    const auto refused = engine->submit(request, nullptr);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::kInvalidArgument);
    EXPECT_EQ(refused.error().message.find("n is " + std::to_string(n)), 0u);
  }
  Request request = request_of(1, 10, 1);
  request.sampling.n = 3;
  EXPECT_TRUE(engine->submit(request, nullptr));
}

// Holds the engine's thread in on_finish until the test has gone on.
class HeldAtItsEnd : public Observer {
 public:
  void on_finish(const Result&, std::string_view) override {
    ended.set_value();
    go_on.get_future().wait_for(std::chrono::milliseconds(kPatience));
  }
  std::promise<void> ended, go_on;
};

TEST(Engine, WhoeverIsToldOfAnEndMaySubmitAgain) {
  EngineOptions o = options();
  o.max_queued = 1;
  const auto engine = open(o);
  engine->start();
  const auto observer = std::make_shared<HeldAtItsEnd>();
  ASSERT_TRUE(engine->submit(request_of(1, 10, 1), observer));
  observer->ended.get_future().wait();
  EXPECT_TRUE(engine->submit(request_of(1, 10, 1), nullptr));
  observer->go_on.set_value();
}

TEST(Engine, ACancelledRequestMakesRoomWithoutARun) {
  EngineOptions o = options();
  o.max_queued = 1;
  const auto engine = open(o);
  for (int i = 0; i < 3; ++i) {
    const auto id = engine->submit(request_of(1, 10, 1), nullptr);
    ASSERT_TRUE(id) << i;
    engine->cancel(*id);
  }
}

TEST(Engine, ClosingCancelsWhatIsUnfinished) {
  for (const bool threaded : {false, true}) {
    const auto outbox = std::make_shared<Outbox>(4000);
    {
      const auto engine = open();
      if (threaded) engine->start();
      ASSERT_TRUE(engine->submit(request_of(1, 20, 2000), outbox));
    }
    std::optional<Result> result;
    while (auto event = outbox->next(0)) result = event->result;
    ASSERT_TRUE(result);
    EXPECT_EQ(result->finish_reason, FinishReason::kCancelled);
  }
}

TEST(Inbox, RefusesRequestsWhenFullButTakesUrgentOnes) {
  engine::Inbox<int> inbox(2);
  EXPECT_TRUE(inbox.push(1));
  EXPECT_TRUE(inbox.push(2));
  EXPECT_FALSE(inbox.push(3));
  inbox.urge(4);
  inbox.urge(5);
  std::thread late([&] { inbox.urge(6); });  // waits for room
  std::vector<int> taken, all;
  while (all.size() < 5) {
    inbox.take(taken, std::chrono::seconds(60));
    all.insert(all.end(), taken.begin(), taken.end());
  }
  late.join();
  EXPECT_EQ(all, (std::vector<int>{1, 2, 4, 5, 6}));
}

}  // namespace
}  // namespace coppice
