// What:    who is in the cache, who waits, and who advances by how many tokens in a step.
// Owns:    every unfinished sequence; their places in the cache (by id).
// Threads: the engine's.
// Fails:   set_budget: kInvalidArgument, kTooLarge. A sequence that cannot go on ends with a
// reason.
//
//   waiting (arrival order) --admit--> live (arrival order) --end--> result
//          ^---------- preempt: the youngest, with what it generated ----------'
//
// Order of a step's rows: sequences with one token to evaluate, then prefill slices, oldest first.
// Nothing here changes arithmetic: rows may come in any company and any cut (promise 3).
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/sequence.h"
#include "kv/kv_cache.h"

namespace coppice::engine {

struct Limits {
  int64_t ctx = 0;              // most tokens of a sequence
  int32_t max_rows = 0;         // of a step; more than max_live
  int32_t slice = 0;            // most rows of one sequence in a step
  int32_t max_live = 0;         // sequences in the cache
  bool prompt_logits = false;   // logit rows are allocated for whole prompts
  int64_t kv_budget = 0;        // bytes
  int64_t kv_budget_limit = 0;  // how far set_budget may go
};

class Scheduler {
 public:
  Scheduler(kv::KvCache& cache, const Limits& limits) : cache_(cache), limits_(limits) {}

  void enqueue(std::unique_ptr<Sequence> sequence);
  // Every choice of the request, wherever it is.
  void cancel(RequestId id);
  void cancel_all();

  // --- a step
  // Renews promises of room, then lets waiting sequences in while there is room.
  void admit();
  // Reserves the step's rows in the cache, making room if it must; 0: nothing can run.
  int32_t reserve_rows();
  Sequence& find(kv::SequenceId id) const { return *by_kv_.at(id); }
  // --- after a step
  void end(Sequence& sequence, FinishReason reason, std::optional<Error> error = std::nullopt);
  // A choice with its first token, grown from a parent that has not taken its own yet.
  void spawn(Sequence& parent, std::unique_ptr<Sequence> child);
  // A choice that ended with its first token never enters the cache.
  void end_unborn(Sequence& child, FinishReason reason, std::optional<Error> error);

  // --- administration
  // Preempts the youngest until what lives fits.
  Status set_budget(int64_t bytes);
  int64_t budget() const { return limits_.kv_budget; }
  // Something was freed behind the scheduler's back (flush, unpin).
  void room_changed() { room_changed_ = true; }

  const std::vector<std::unique_ptr<Sequence>>& live() const { return live_; }
  size_t waiting() const { return waiting_.size(); }
  bool idle() const { return live_.empty() && waiting_.empty(); }
  int64_t preemptions() const { return preemptions_; }
  // Choices. Any thread may ask; whoever was told of an end finds it counted.
  int64_t finished() const { return finished_.load(); }

 private:
  int64_t wanted_total(const Sequence& sequence) const;
  bool renew_promises();
  struct Need {
    int64_t total = 0;  // tokens
    int64_t bytes = 0;
  };
  Need need_of(const Sequence& sequence) const;
  bool admit_first();
  std::optional<kv::SequenceId> let_in(const Sequence& sequence, int64_t total);
  void make_live(std::unique_ptr<Sequence> sequence, kv::SequenceId id, int64_t promised);
  std::unique_ptr<Sequence> leave_cache(Sequence& sequence);
  void refuse(std::unique_ptr<Sequence> sequence, int64_t bytes_needed);
  void finish(Sequence& sequence, FinishReason reason, const std::optional<Error>& error,
              int64_t held);
  std::optional<int32_t> try_reserve();
  std::optional<int32_t> take_rows(Sequence& sequence, int32_t most);
  void make_room();
  void preempt_youngest();

  kv::KvCache& cache_;
  Limits limits_;
  std::vector<std::unique_ptr<Sequence>> live_;    // oldest first
  std::deque<std::unique_ptr<Sequence>> waiting_;  // oldest first
  std::unordered_map<kv::SequenceId, Sequence*> by_kv_;
  bool room_changed_ = true;
  int32_t steps_refused_ = 0;  // since the first in the queue was last tried
  int64_t preemptions_ = 0;
  std::atomic<int64_t> finished_{0};
};

}  // namespace coppice::engine
