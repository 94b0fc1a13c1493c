// Drills on the whole engine: cancels, preemptions and budget changes under load, and the receipt
// of many requests over one long prefix.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include <unistd.h>

#include "base/file.h"
#include "engine/test_harness.h"

namespace coppice::engine {
namespace {

EngineOptions cpu_options() {
  EngineOptions o = golden_options("llama");
  o.backend = "cpu";
  return o;
}

// Some prompts of a company: they begin alike at several levels.
std::vector<TokenId> prompt_of(uint32_t kind) {
  const auto noise = [](uint32_t seed, size_t count) { return token_noise(seed, count, 3, 250); };
  return joined(joined(noise(1, 97), noise(10 + kind % 3, 61)), noise(20 + kind, 20 + kind * 7));
}

constexpr uint32_t kKinds = 12;
constexpr int32_t kAnswer = 24;

Take alone(const std::vector<TokenId>& prompt, const Sampling& sampling) {
  EngineOptions o = cpu_options();
  o.prompt_logits = true;
  Rig rig(o);
  const auto tape = rig.submit(prompt, sampling);
  rig.run();
  return tape->take();
}

// Every row that came equals the lone run's row at that position.
void expect_rows_of(Tape& tape, const Take& expected) {
  EXPECT_EQ(tape.unsteady_rows, 0);
  for (const auto& [position, hash] : tape.take().logits) {
    ASSERT_EQ(expected.logits.at(position), hash) << "position " << position;
  }
}

TEST(Drill, CancelsPreemptionsAndBudgetsUnderLoad) {
  Sampling sampling = greedy(kAnswer);
  sampling.temperature = 0.9;
  sampling.seed = 4;
  std::vector<Take> expected;
  for (uint32_t kind = 0; kind < kKinds; ++kind) {
    expected.push_back(alone(prompt_of(kind), sampling));
  }

  EngineOptions o = cpu_options();
  o.prompt_logits = true;
  o.max_live = 16;
  o.max_rows = 96;
  o.slice = 48;
  Rig rig(o);
  const kv::KvCache& cache = *rig.core().parts().cache;
  const int64_t most = cache.worst_case_bytes(2500), least = cache.worst_case_bytes(450);
  ASSERT_LE(most, *o.kv_budget);

  struct Flight {
    RequestId id;
    uint32_t kind;
    std::shared_ptr<Tape> tape;
    bool cancelled = false;
  };
  std::vector<Flight> flights;
  std::mt19937 random(99);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint32_t>(n));
  };
  const auto active = [&] {
    std::vector<size_t> out;
    for (size_t i = 0; i < flights.size(); ++i) {
      if (!flights[i].tape->finished()) out.push_back(i);
    }
    return out;
  };
  int64_t cancels = 0, budgets = 0;
  ASSERT_TRUE(rig.core().set_budget(most));
  while (cancels + budgets + rig.core().stats().preemptions < 200 || cancels < 60 || budgets < 60 ||
         rig.core().stats().preemptions < 30) {
    while (active().size() < 24) {
      const auto kind = static_cast<uint32_t>(below(kKinds));
      const auto tape = rig.submit(prompt_of(kind), sampling);
      flights.push_back({rig.last_id(), kind, tape});
    }
    rig.step();
    rig.check();
    ASSERT_LE(rig.core().stats().bytes_held, rig.core().stats().kv_budget);
    if (below(6) == 0) {
      const std::vector<size_t> candidates = active();
      if (candidates.empty()) continue;
      Flight& flight =
          flights[candidates[static_cast<size_t>(below(static_cast<int64_t>(candidates.size())))]];
      rig.core().cancel(flight.id);
      flight.cancelled = true;
      ASSERT_TRUE(flight.tape->finished());
      ++cancels;
    }
    if (below(6) == 0) {
      ASSERT_TRUE(rig.core().set_budget(least + below(most - least)));
      ++budgets;
    }
    rig.check();
    ASSERT_LT(flights.size(), 20000u);
  }
  ASSERT_TRUE(rig.core().set_budget(most));
  rig.run();

  int64_t whole = 0, resumed = 0;
  for (const Flight& flight : flights) {
    ASSERT_TRUE(flight.tape->finished());
    const Take& take = flight.tape->take();
    ASSERT_EQ(take.finishes, 1);
    expect_rows_of(*flight.tape, expected[flight.kind]);
    resumed += take.result.preemptions > 0 ? 1 : 0;
    if (flight.cancelled) {
      EXPECT_EQ(take.result.finish_reason, FinishReason::kCancelled);
      continue;
    }
    EXPECT_EQ(take.result.finish_reason, FinishReason::kLength);
    EXPECT_EQ(take.tokens, expected[flight.kind].tokens);
    ++whole;
  }
  EXPECT_GT(whole, 30);
  EXPECT_GT(resumed, 10);
  rig.expect_all_free();
}

// The golden with a longer context: positions beyond the trained ones are numbers like any other.
class LongModel {
 public:
  LongModel() {
    namespace fs = std::filesystem;
    const fs::path golden = COPPICE_TEST_DATA "/models/llama";
    std::string name = "coppice-long-";
    name += std::to_string(::getpid());
    path_ = fs::temp_directory_path() / name;
    fs::create_directories(path_);
    for (const char* part : {"model.safetensors", "tokenizer.json"}) {
      fs::copy_file(golden / part, path_ / part, fs::copy_options::overwrite_existing);
    }
    std::string config = *read_file((golden / "config.json").string());
    const std::string key = "\"max_position_embeddings\": 2048";
    const size_t at = config.find(key);
    CHECK(at != std::string::npos);
    config.replace(at, key.size(), "\"max_position_embeddings\": 8192");
    std::ofstream(path_ / "config.json") << config;
  }
  ~LongModel() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// The bar: 32 requests, one prefix of 4096 to 4159 tokens, 64 private and 50 generated tokens each.
TEST(Drill, ThirtyTwoRequestsOverOneLongPrefix) {
  const LongModel model;
  constexpr int64_t kRequests = 32, kPrivate = 64, kGenerated = 50;
  double sum = 0.0, worst = 0.0;
  int runs = 0;
  for (int64_t prefix = 4096; prefix <= 4159; prefix += prefix < 4112 ? 1 : 47) {
    EngineOptions o = cpu_options();
    o.model = model.path();
    o.threads = 2;
    Rig rig(o);
    const auto shared = token_noise(7, static_cast<size_t>(prefix), 3, 250);
    std::vector<std::shared_ptr<Tape>> tapes;
    for (uint32_t i = 0; i < kRequests; ++i) {
      tapes.push_back(rig.submit(joined(shared, token_noise(100 + i, kPrivate, 3, 250)),
                                 greedy(static_cast<int32_t>(kGenerated))));
    }
    rig.run();
    // The last generated token is never evaluated, so it is not among the unique ones.
    const int64_t unique = prefix + kRequests * (kPrivate + kGenerated - 1);
    int64_t evaluated = 0;
    for (const auto& tape : tapes) {
      ASSERT_EQ(tape->take().tokens.size(), static_cast<size_t>(kGenerated));
      evaluated += tape->take().result.usage.evaluated_tokens;
    }
    const EngineStats stats = rig.core().stats();
    const double ratio = static_cast<double>(stats.peak.bytes_held) /
                         static_cast<double>(unique * stats.bytes_per_token);
    EXPECT_LE(evaluated, unique + 32);
    EXPECT_EQ(stats.max_step_sequences, kRequests);
    sum += ratio;
    worst = std::max(worst, ratio);
    ++runs;
  }
  EXPECT_EQ(runs, 18);
  EXPECT_LE(sum / runs, 1.10);
  EXPECT_LE(worst, 1.20);
  std::printf("peak bytes over unique bytes: mean %.4f, worst %.4f\n", sum / runs, worst);
}

}  // namespace
}  // namespace coppice::engine
