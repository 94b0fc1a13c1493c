// What:    the engine: requests in, tokens out, over one model and one prefix tree.
// Owns:    backend, model, tokenizer, cache, scheduler and (after start) the thread that runs them.
// Threads: every method may be called from any thread once started; before start(), from one.
// Fails:   open: as the model's files, or kTooLarge naming bytes. submit: kInvalidArgument,
//          kOverloaded. A request's own failure arrives in its Result.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "coppice/options.h"
#include "coppice/profile.h"
#include "coppice/request.h"

namespace coppice {

namespace text {
class Tokenizer;
}

struct EngineStats {
  uint64_t version = 0;  // of this snapshot
  // Since open.
  int64_t steps = 0;
  int64_t rows = 0;      // evaluated
  int64_t finished = 0;  // choices, whatever the reason
  int64_t preemptions = 0;
  int64_t max_step_rows = 0;       // most rows in one step
  int64_t max_step_sequences = 0;  // most sequences with rows in one step
  int64_t longest_slice = 0;       // most rows of one sequence in a step
  // Now.
  int64_t live = 0, waiting = 0;
  int64_t kv_budget = 0, pages_total = 0, pages_free = 0, page_bytes = 0, bytes_held = 0;
  int64_t bytes_per_token = 0, tokens_held = 0, nodes = 0, pins = 0, references = 0;
  int64_t tokens_reclaimed = 0, tokens_copied = 0;
  int64_t overlays = 0, overlays_freed = 0;  // of gated tiers' inner boundaries
  int64_t tokens_thinned = 0;                // in prefixes that were thinned, every time
  int64_t pages_thinned = 0;                 // that this gave back
  KvReceipt peak;                            // since open or reset_peak
};

struct PinInfo {
  uint64_t id = 0;     // 0: nothing was held, no pin
  int64_t tokens = 0;  // covered
};

// What a loaded model and its set-up amount to, for the log and `inspect`.
struct EngineInfo {
  std::string backend;  // one line per fact
  int64_t ctx = 0, vocab_size = 0;
  int64_t weight_bytes = 0, activation_bytes = 0, kv_budget = 0;
  std::string gate;  // one line; empty: none
};

class Engine {
 public:
  static Expected<std::unique_ptr<Engine>> open(const EngineOptions& options,
                                                const LoadCallback& progress = {});
  ~Engine();  // cancels what is unfinished and joins the thread

  // The prompt is encoded on the caller's thread. The observer is called on the engine's.
  Expected<RequestId> submit(Request request, std::shared_ptr<Observer> observer);
  // Unknown and finished ids are ignored. Takes effect before the next step.
  void cancel(RequestId id);

  // Runs the loop on a thread of its own from now on.
  void start();
  // Without start(): runs on the caller's thread until nothing is left to do. give_up is asked
  // before every step; once it says true, what is unfinished is cancelled.
  void run(const std::function<bool()>& give_up = {});

  // Administrative commands run between steps; these wait for the outcome.
  // kOverloaded: the pin would keep memory that running requests were promised. While a pin with a
  // time to live (ttl_seconds > 0) takes the room that a request needs, the request waits.
  // tier, exact, thinning: as in the requests that it is for; default: the engine's tier.
  Expected<PinInfo> pin(std::vector<TokenId> tokens, const std::string& cache_salt,
                        double ttl_seconds, std::optional<KvTier> tier = {},
                        const std::vector<TokenRange>& exact = {},
                        KvThinning thinning = KvThinning::kRefuse);
  bool unpin(uint64_t pin);
  void flush();
  Status set_budget(int64_t bytes);
  void reset_peak();
  // Where the steps' time went; empty unless the engine was opened with `profile`.
  Profile profile() const;
  void reset_profile();

  // After start(): a snapshot, made anew between steps four times a second and no more often.
  EngineStats stats() const;
  const EngineInfo& info() const;
  const text::Tokenizer& tokenizer() const;

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// An observer that carries events to another thread in a bounded queue. A reader that falls
// `capacity` events behind has its request cancelled.
class Outbox : public Observer {
 public:
  struct Event {
    int32_t choice = 0;
    std::string text;
    std::optional<TokenId> token;
    std::optional<TokenLogprob> logprob;
    std::optional<Result> result;  // the choice's last event
  };
  explicit Outbox(size_t capacity) : capacity_(capacity) {}

  // The next event, waiting up to timeout_ms; empty: none came.
  std::optional<Event> next(int64_t timeout_ms);

  Verdict on_token(const TokenEvent& event) override;
  void on_finish(const Result& result, std::string_view rest) override;

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<Event> events_;
  std::map<int32_t, std::string> refused_;  // by choice: text of the event that found no room
};

}  // namespace coppice
