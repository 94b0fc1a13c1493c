// What:    an engine core on a golden model for tests, and an observer that records everything.
// Owns:    Rig: the core. Tape: what one request's choices were told.
// Threads: one.
// Fails:   CHECKs: a test that cannot load its model has nothing to say.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "coppice/options.h"
#include "engine/core.h"
#include "engine/loader.h"
#include "model/gate_header.h"

namespace coppice::engine {

// What happened to one choice.
struct Take {
  std::map<int64_t, uint64_t> logits;  // position -> hash of the row's bits
  std::vector<TokenId> tokens;
  std::string text;
  int finishes = 0;
  Result result;
};

class Tape : public Observer {
 public:
  Verdict on_token(const TokenEvent& event) override;
  void on_logits(RequestId id, int32_t choice, int64_t position, const float* logits,
                 int64_t vocab) override;
  void on_finish(const Result& result, std::string_view rest) override;

  // Asked after every token; default: go on.
  std::function<Verdict(const TokenEvent&)> judge;
  // Positions whose rows came twice with other bits.
  int unsteady_rows = 0;

  // Empty before anything happened to it.
  const Take& take(int32_t choice = 0) { return takes_[choice]; }
  bool finished(int32_t choice = 0) const;

 private:
  std::map<int32_t, Take> takes_;
};

class Rig {
 public:
  using Wrap = std::function<std::unique_ptr<ops::Backend>(std::unique_ptr<ops::Backend>)>;
  explicit Rig(const EngineOptions& options, const Wrap& wrap = {});

  // Refusals come back as a finished tape with kError.
  std::shared_ptr<Tape> submit(std::vector<TokenId> prompt, const Sampling& sampling,
                               std::shared_ptr<Tape> tape = nullptr);
  std::shared_ptr<Tape> submit(Request request, std::shared_ptr<Tape> tape = nullptr);
  kv::Scope scope(KvTier tier = KvTier::kOff, KvThinning thinning = KvThinning::kRefuse) const {
    return scope_of(options_.model, tiers_, tier, "", thinning);
  }
  bool step() { return core_->step(seconds_ += 0.001); }
  void run();
  Core& core() { return *core_; }
  RequestId last_id() const { return last_id_; }
  // Advances the clock of the pins.
  void sleep(double seconds) { seconds_ += seconds; }
  // Every structure's own checks.
  void check() const { core_->parts().cache->check_invariants(); }
  // flush; then every page must be free and nothing referenced.
  void expect_all_free();

 private:
  EngineOptions options_;
  Limits limits_;
  Tiers tiers_;
  std::unique_ptr<Core> core_;
  RequestId last_id_ = 0;
  double seconds_ = 0.0;
};

// Ids are places in a list of byte strings.
class ListTokenizer : public text::Tokenizer {
 public:
  explicit ListTokenizer(std::vector<std::string> words) : words_(std::move(words)) {}

  std::vector<TokenId> encode(std::string_view, bool) const override { return {}; }
  std::string decode(const std::vector<TokenId>&, bool) const override { return {}; }
  std::string_view token_bytes(TokenId id) const override {
    return words_.at(static_cast<size_t>(id));
  }
  bool is_special(TokenId) const override { return false; }
  int32_t vocab_size() const override { return static_cast<int32_t>(words_.size()); }
  std::optional<TokenId> find(std::string_view) const override { return {}; }

 private:
  std::vector<std::string> words_;
};

// Options for a golden model under tests/data/models, backend "ref", one thread, small budget.
EngineOptions golden_options(const std::string& model);
// A gate with random weights for a golden model, written into `directory` (model/test_gate.h);
// edit: changes its header first. Its path.
std::string random_gate_file(const std::string& directory, const std::string& model,
                             model::GateKind kind,
                             const std::function<void(model::GateHeader&)>& edit = {});
// Ids in [first, vocab) that look like nothing in particular but are the same every time.
std::vector<TokenId> token_noise(uint32_t seed, size_t count, TokenId first, TokenId vocab);
// prefix, then tail.
std::vector<TokenId> joined(std::vector<TokenId> prefix, const std::vector<TokenId>& tail);
// Greedy, to the very end.
Sampling greedy(int32_t max_tokens);

}  // namespace coppice::engine
