// What:    the step loop: schedule, plan, forward, sample, observe, commit.
// Owns:    backend, checkpoint, model, tokenizer, cache, scheduler.
// Threads: one; the engine's thread, or the caller's when there is none.
// Fails:   never; a request's failure ends that request.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "coppice/engine.h"
#include "engine/sampler.h"
#include "engine/scheduler.h"
#include "engine/step_profile.h"
#include "model/gate.h"
#include "model/model.h"
#include "text/tokenizer.h"

namespace coppice::engine {

// Torn down from the last to the first: each may use those above it.
struct Parts {
  std::unique_ptr<ops::Backend> backend;
  std::unique_ptr<model::Checkpoint> checkpoint;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<model::Gate> gate;  // null: tier off alone
  std::unique_ptr<kv::KvCache> cache;
  // What the backend counts into; null: nothing is counted.
  std::shared_ptr<ops::OpProfile> profile;
};

class Core {
 public:
  Core(Parts parts, const Limits& limits, kv::Partition partition);

  void submit(std::shared_ptr<const Submission> submission);
  void cancel(RequestId id) { scheduler_.cancel(id); }
  void cancel_all() { scheduler_.cancel_all(); }
  // One step; false: nothing is left to do. now_seconds: the clock of the pins' time to live.
  bool step(double now_seconds);
  // The last step had no rows: there is nothing to do, or all waits until a pin runs out.
  bool stalled() const { return stalled_; }
  // Without a step: lets pins run out.
  void tick(double now_seconds) { parts_.cache->expire(now_seconds); }

  // kOverloaded: it would keep what running requests were promised.
  Expected<PinInfo> pin(const kv::Scope& scope, const std::vector<TokenId>& tokens,
                        double ttl_seconds);
  bool unpin(uint64_t pin);
  void flush();
  Status set_budget(int64_t bytes) { return scheduler_.set_budget(bytes); }
  void reset_peak() { stats_.peak = {}; }
  Profile profile() const { return profile_.report(parts_.model->config()); }
  void reset_profile() { profile_.reset(); }

  EngineStats stats() const;
  int64_t finished() const { return scheduler_.finished(); }  // any thread may ask
  bool idle() const { return scheduler_.idle(); }
  const Parts& parts() const { return parts_; }

 private:
  struct Outcome {
    Sequence* sequence;
    std::optional<FinishReason> end;
    std::vector<std::optional<FinishReason>> unborn_ends;  // of sequence->unborn
  };
  void observe_peak(const kv::Step& step);
  void choose_logit_rows(const kv::Step& step);
  TensorView run_model(kv::Step& step);
  void count_evaluated(const kv::Step& step);
  void deliver(const kv::Step& step, const TensorView& logits);
  std::optional<FinishReason> next_token(Sequence& sequence, std::span<const float> logits,
                                         Clock::time_point now);
  void apply(Outcome& outcome);

  Parts parts_;
  Limits limits_;
  kv::Partition partition_;
  Scheduler scheduler_;
  StepProfile profile_;
  EngineStats stats_;
  bool stalled_ = true;
  // Reused from step to step.
  SamplerScratch scratch_;
  std::vector<int32_t> owners_;      // [T] index of the row's slice
  std::vector<int64_t> evaluated_;   // [slices]
  std::vector<int32_t> logit_rows_;  // [R]
  std::vector<int32_t> row_counts_;  // [slices] logit rows of each
  std::vector<Outcome> outcomes_;
};

}  // namespace coppice::engine
