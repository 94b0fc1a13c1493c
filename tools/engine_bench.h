// What:    timed runs of an engine over random tokens: what `bench model` and `bench batched` are
//          made of.
// Owns:    the engine.
// Threads: one; the engine runs on the caller's.
// Fails:   run: as Engine::submit; kTooLarge where the cache did not keep what a run counts on;
//          kCancelled once the command was interrupted.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "coppice/engine.h"
#include "interrupt.h"
#include "model_flags.h"

namespace coppice::tools {

class EngineBench {
 public:
  // A prompt, and how many tokens are generated after it. Jobs of one salt share what they begin
  // with; a run's result must not depend on what the tokens are.
  struct Job {
    std::vector<TokenId> prompt;
    std::string salt = {};
    int32_t generate = 1;
    std::optional<KvTier> tier = {};       // none: the engine's
    std::vector<int64_t> boundaries = {};  // as in Request
  };

  static Expected<std::unique_ptr<EngineBench>> open(const EngineOptions& options);

  std::vector<TokenId> random_tokens(int64_t count);
  // So many different tokens.
  std::vector<TokenId> different_tokens(int64_t count);

  // Seconds until all jobs are done. rows: how many the engine must have evaluated for them; any
  // other number means that something was not held, or was set aside, and the time means nothing.
  // Empty: any. before_step: called before every step.
  Expected<double> run(std::vector<Job> jobs, std::optional<int64_t> rows = {},
                       const std::function<void()>& before_step = {});
  // Gives back everything held.
  void forget() { engine_->flush(); }

  // Refuses sequences longer than --ctx and keys and values beyond --kv-budget. `what` names the
  // case, `flags` those that make it so long.
  Status fits(const std::string& what, const std::string& flags, int64_t longest,
              int64_t tokens) const;

  const EngineInfo& info() const { return engine_->info(); }
  Engine& engine() { return *engine_; }

 private:
  explicit EngineBench(std::unique_ptr<Engine> engine) : engine_(std::move(engine)) {}

  std::unique_ptr<Engine> engine_;
  Interrupt interrupt_;
  uint64_t random_ = 1;
};

// What a line says about the machine and the model: model, weight_bytes, kv_type, threads, isa.
nlohmann::ordered_json machine_json(const ModelFlags& flags, const EngineOptions& options,
                                    const EngineInfo& info);

}  // namespace coppice::tools
