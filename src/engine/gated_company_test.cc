// Requests of all tiers that come and go under pressure and share beginnings: nobody's answer
// depends on who else was there, and every receipt holds together.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/test_harness.h"
#include "model/gate_file.h"
#include "model/test_files.h"

namespace coppice::engine {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kSeeds = 1;  // a sanitizer makes a step 20 times as slow
#else
constexpr uint64_t kSeeds = 6;
#endif
constexpr int64_t kSlots = 700;  // that the budget has pages for: the longest request takes 410

EngineOptions options(const std::string& gate) {
  EngineOptions out = golden_options("llama");
  out.backend = "cpu";
  out.gate = gate;
  out.max_live = 6;
  out.max_rows = 100;
  out.slice = 70;
  return out;
}

class Company {
 public:
  Company(const EngineOptions& options, uint64_t seed) : random_(seed), options_(options) {
    for (std::vector<TokenId>& base : bases_) base = tokens(pick(120, 280));
    options_.kv_budget = Rig(options).core().parts().cache->worst_case_bytes(kSlots);
    rig_ = std::make_unique<Rig>(options_);
  }

  void run(int requests) {
    while (requests > 0 || !rig_->core().idle()) {
      const EngineStats stats = rig_->core().stats();
      while (requests > 0 && stats.waiting < 4 && chance(40)) {
        submit();
        --requests;
      }
      if (chance(3)) squeeze();
      if (chance(3) && !asked_.empty()) rig_->core().cancel(asked_[any(asked_)].id);
      rig_->step();
      if (chance(10)) rig_->check();
      ASSERT_LE(rig_->core().stats().bytes_held, *options_.kv_budget);
    }
    rig_->expect_all_free();
  }
  void expect_whole() {
    Rig alone(roomy());
    for (const Asked& asked : asked_) {
      SCOPED_TRACE(asked.id);
      const auto tape = alone.submit(asked.request);
      alone.run();
      alone.core().flush();
      for (int32_t choice = 0; choice < asked.request.sampling.n; ++choice) {
        ASSERT_TRUE(asked.tape->finished(choice));
        expect_like(asked, asked.tape->take(choice), tape->take(choice));
      }
      if (asked.request.kv_thinning == KvThinning::kRefuse) {
        EXPECT_EQ(asked.tape->unsteady_rows, 0);
      }
    }
  }
  int64_t preemptions() { return rig_->core().stats().preemptions; }
  int64_t thinned() const { return thinned_; }
  int64_t cancelled() const { return cancelled_; }

 private:
  struct Asked {
    RequestId id;
    Request request;
    std::shared_ptr<Tape> tape;
  };

  EngineOptions roomy() const {
    EngineOptions out = options_;
    out.kv_budget = golden_options("llama").kv_budget;
    return out;
  }
  int64_t pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(random_);
  }
  bool chance(int percent) { return pick(1, 100) <= percent; }
  template <class Container>
  size_t any(const Container& from) {
    return static_cast<size_t>(pick(0, std::ssize(from) - 1));
  }
  std::vector<TokenId> tokens(int64_t count) {
    return token_noise(static_cast<uint32_t>(random_()), static_cast<size_t>(count), 3, 320);
  }

  // Sets aside whom a part of the budget does not hold.
  void squeeze() {
    Core& core = rig_->core();
    ASSERT_TRUE(core.set_budget(core.parts().cache->worst_case_bytes(pick(16, 600))));
    ASSERT_TRUE(core.set_budget(*options_.kv_budget));
  }
  void submit() {
    Request request;
    const size_t number = any(bases_);
    const std::vector<TokenId>& base = bases_[number];
    const int64_t cut = chance(60) ? std::ssize(base) : pick(1, std::ssize(base));
    const auto prompt = joined({base.begin(), base.begin() + cut}, tokens(pick(0, 40)));
    request.prompt = prompt;
    request.sampling = greedy(static_cast<int32_t>(chance(20) ? 1 : pick(2, 90)));
    request.sampling.n = chance(25) ? 3 : 1;
    request.sampling.temperature = chance(50) ? 1.0 : 0.0;
    request.sampling.seed = random_();
    request.kv_tier = std::array{KvTier::kOff, KvTier::kMild, KvTier::kHard,
                                 KvTier::kHard}[static_cast<size_t>(pick(0, 3))];
    if (chance(60)) request.kv_thinning = KvThinning::kAllow;
    // Of a base, the same ones: so that there is something to share.
    if (number == 0 && cut > 60) request.exact = {{20, 60}};
    if (chance(50)) request.boundaries = {cut, std::max<int64_t>(1, cut / 2)};
    const auto tape = rig_->submit(request);
    asked_.push_back({rig_->last_id(), request, tape});
  }

  void expect_like(const Asked& asked, const Take& take, const Take& alone) {
    const Result& result = take.result;
    const Usage& usage = result.usage;
    const bool gated = asked.request.kv_tier != KvTier::kOff;
    const bool elastic = gated && asked.request.kv_thinning == KvThinning::kAllow;
    const bool cancelled = result.finish_reason == FinishReason::kCancelled;
    EXPECT_EQ(take.finishes, 1);
    EXPECT_FALSE(result.error) << result.error->message;
    cancelled_ += cancelled;
    thinned_ += usage.thinned_tokens;

    EXPECT_EQ(usage.thinned_tokens > 0, usage.kv_epoch > 0);
    EXPECT_LE(usage.thinned_tokens, usage.prompt_tokens);
    EXPECT_TRUE(elastic || usage.thinned_tokens == 0);
    EXPECT_GE(usage.cached_tokens, 0);
    EXPECT_LE(usage.cached_tokens, usage.prompt_tokens);
    if (usage.evaluated_tokens > 0 || !cancelled) {
      EXPECT_EQ(usage.keep_ratio.size(), gated ? 2u : 0u);
      EXPECT_GE(usage.cached_tokens + usage.evaluated_tokens, cancelled ? 0 : usage.prompt_tokens);
    }
    for (const double ratio : usage.keep_ratio) EXPECT_TRUE(ratio > 0 && ratio <= 1) << ratio;
    EXPECT_GE(usage.kv_bytes, cancelled ? 0 : 1);

    if (!cancelled) {
      EXPECT_EQ(result.finish_reason, FinishReason::kLength);
      EXPECT_EQ(take.tokens.size(), alone.tokens.size());
    }
    ASSERT_LE(take.tokens.size(), alone.tokens.size());
    if (elastic) return;  // what it began from may have been thinned
    EXPECT_TRUE(std::ranges::equal(take.tokens, std::span(alone.tokens).first(take.tokens.size())));
    if (!cancelled) {
      EXPECT_EQ(usage.keep_ratio, alone.result.usage.keep_ratio);
    }
  }

  std::mt19937_64 random_;
  EngineOptions options_;
  std::array<std::vector<TokenId>, 3> bases_;
  std::unique_ptr<Rig> rig_;
  std::vector<Asked> asked_;
  int64_t thinned_ = 0, cancelled_ = 0;
};

// Returns how many tokens of thinned prefixes were read.
int64_t expect_independent(const std::string& gate) {
  int64_t preemptions = 0, thinned = 0, cancelled = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    SCOPED_TRACE(seed);
    Company company(options(gate), seed);
    company.run(60);
    company.expect_whole();
    preemptions += company.preemptions();
    thinned += company.thinned();
    cancelled += company.cancelled();
  }
  EXPECT_GE(preemptions, static_cast<int64_t>(kSeeds));
  EXPECT_GE(cancelled, static_cast<int64_t>(kSeeds));
  return thinned;
}

TEST(GatedCompany, NobodysAnswerDependsOnTheOthers) {
  EXPECT_GT(expect_independent("policy:random,keep=0.5,window=16"), 0);
}

// A gate with a memory, which generated tokens do not ask.
TEST(GatedCompany, NorUnderAGateOfPrompts) {
  const model::TemporaryDirectory directory;
  expect_independent(random_gate_file(directory.path(), "llama", model::GateKind::kCausal,
                                      [](auto& header) { header.decode_gate = false; }));
}

}  // namespace
}  // namespace coppice::engine
