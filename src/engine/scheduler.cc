#include "engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "coppice/options.h"

namespace coppice::engine {
namespace {

// Answers up to this length grow without allocating in a step.
constexpr int64_t kUsualAnswer = 4096;
// How many tokens beyond those it has a sequence is promised room for.
constexpr int64_t kAhead = 256;
// Room can appear without the scheduler's doing (a pin runs out), so a refused head of the queue is
// tried again now and then; each try walks the tree along the whole prompt.
constexpr int32_t kRetrySteps = 16;

template <class Container>
void insert_by_age(Container& container, std::unique_ptr<Sequence> sequence) {
  // From the young end: a new arrival is the youngest.
  const auto at = std::find_if(container.rbegin(), container.rend(),
                               [&](const auto& other) { return other->older_than(*sequence); });
  container.insert(at.base(), std::move(sequence));
}

std::string outgrown(const Sequence& s, int64_t needed, int64_t budget, const kv::KvStats& stats) {
  std::string text = "the request needs at least " + std::to_string(needed) +
                     " bytes of keys and values (" + std::to_string(s.prompt_tokens()) +
                     " prompt tokens, max_tokens " + std::to_string(s.sampling().max_tokens) +
                     "); --kv-budget allows " + std::to_string(budget);
  if (stats.pins > 0) text += ", of which " + std::to_string(stats.pins) + " pins hold a part";
  return text;
}

}  // namespace

void Scheduler::enqueue(std::unique_ptr<Sequence> sequence) {
  if (waiting_.empty() || sequence->older_than(*waiting_.front())) room_changed_ = true;
  insert_by_age(waiting_, std::move(sequence));
}

void Scheduler::finish(Sequence& sequence, FinishReason reason, const std::optional<Error>& error,
                       int64_t held) {
  for (const auto& child : std::exchange(sequence.unborn, {})) {
    ++finished_;
    child->finish(reason, error, 0);
  }
  ++finished_;
  sequence.finish(reason, error, held);
}

// Takes a live sequence out of the cache; what it computed stays there as a reclaimable prefix.
std::unique_ptr<Sequence> Scheduler::leave_cache(Sequence& sequence) {
  const auto at = std::find_if(live_.begin(), live_.end(),
                               [&](const auto& other) { return other.get() == &sequence; });
  CHECK(at != live_.end());
  // Here, so that whoever is set aside and never comes back has said what it read.
  if (cache_.progress(sequence.kv).computed > 0) {
    sequence.note_footprint(cache_.footprint(sequence.kv));
  }
  std::unique_ptr<Sequence> out = std::move(*at);
  live_.erase(at);
  by_kv_.erase(out->kv);
  cache_.close(out->kv);
  out->kv = 0;
  out->promised = 0;
  room_changed_ = true;
  return out;
}

void Scheduler::end(Sequence& sequence, FinishReason reason, std::optional<Error> error) {
  const int64_t held = cache_.progress(sequence.kv).computed;
  const std::unique_ptr<Sequence> owned = leave_cache(sequence);
  finish(*owned, reason, error, held);
}

void Scheduler::end_unborn(Sequence& child, FinishReason reason, std::optional<Error> error) {
  finish(child, reason, error, child.prompt_tokens());
}

void Scheduler::cancel(RequestId id) {
  for (size_t i = live_.size(); i-- > 0;) {
    if (live_[i]->submission().id == id) end(*live_[i], FinishReason::kCancelled);
  }
  for (size_t i = waiting_.size(); i-- > 0;) {
    if (waiting_[i]->submission().id != id) continue;
    const std::unique_ptr<Sequence> owned = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
    finish(*owned, FinishReason::kCancelled, std::nullopt, 0);
    room_changed_ = true;
  }
}

void Scheduler::cancel_all() {
  while (!live_.empty()) cancel(live_.back()->submission().id);
  while (!waiting_.empty()) cancel(waiting_.back()->submission().id);
}

// --- admission

int64_t Scheduler::wanted_total(const Sequence& sequence) const {
  const int64_t size = static_cast<int64_t>(sequence.tokens.size());
  // The last token is never evaluated.
  const int64_t most = std::min(sequence.final_total(), limits_.ctx) - 1;
  return std::max(size, std::min(size + kAhead, most));
}

// False: some live sequence has grown past its promise and finds no room for more.
bool Scheduler::renew_promises() {
  bool all = true;
  for (const auto& s : live_) {
    if (static_cast<int64_t>(s->tokens.size()) <= s->promised) continue;
    const int64_t total = wanted_total(*s);
    if (cache_.admit(s->kv, total)) {
      s->promised = total;
    } else {
      all = false;
    }
  }
  return all;
}

void Scheduler::admit() {
  // Whoever is let in while a live sequence lacks room would only be set aside again.
  const bool renewed = renew_promises();
  if (waiting_.empty() || (!renewed && !live_.empty())) return;
  if (!room_changed_ && !live_.empty() && ++steps_refused_ < kRetrySteps) return;
  room_changed_ = false;
  steps_refused_ = 0;
  while (!waiting_.empty() && static_cast<int32_t>(live_.size()) < limits_.max_live) {
    if (!admit_first()) break;
  }
}

// The oldest that waits is let in, or ends, or finds no room now. False: nobody else is let in now.
bool Scheduler::admit_first() {
  Sequence& s = *waiting_.front();
  const auto take = [&] {
    std::unique_ptr<Sequence> out = std::move(waiting_.front());
    waiting_.pop_front();
    return out;
  };
  const auto [total, needed] = need_of(s);
  const bool gated = s.submission().tier != nullptr, ran = gated && s.result.preemptions > 0;
  const bool fits = needed <= limits_.kv_budget;
  // That is what it needs if all is kept. Under a gate whoever was set aside may have outgrown it
  // and fitted all the same.
  if (!fits && !ran) {
    refuse(take(), needed);
    return true;
  }
  std::optional<kv::SequenceId> id = let_in(s, total);
  if (!id && fits && live_.empty() && gated) {
    // Where it would part from what is held costs boundaries: beside nothing it has none of those.
    cache_.flush();
    id = let_in(s, total);
  }
  if (!id) {
    // Alone and still no room: what is left is pinned, some of it perhaps not for long.
    if (!live_.empty() || (fits && cache_.stats().expiring_pins > 0)) return false;
    if (!ran) {
      refuse(take(), needed);
      return true;
    }
    // Alone it needs no promise, and goes on as far as there is room; whoever came beside it now
    // would be promised what it came for.
    const kv::SequenceId unpromised = cache_.open(s.submission().scope, s.keys(), s.open_options());
    make_live(take(), unpromised, 0);
    return false;
  }
  make_live(take(), *id, total);
  return true;
}

// What it needs if all is kept: with room ahead or, where that is more than there is, for what it
// has.
Scheduler::Need Scheduler::need_of(const Sequence& s) const {
  const auto need = [&](int64_t total) {
    return Need{total, cache_.worst_case_bytes(total, s.open_options())};
  };
  const Need ahead = need(wanted_total(s));
  if (ahead.bytes <= limits_.kv_budget || s.generated() == 0) return ahead;
  return need(static_cast<int64_t>(s.tokens.size()));
}

// Its place in the cache with room for `total` tokens; empty: no room now.
std::optional<kv::SequenceId> Scheduler::let_in(const Sequence& s, int64_t total) {
  const kv::SequenceId id = cache_.open(s.submission().scope, s.keys(), s.open_options());
  if (cache_.admit(id, total)) return id;
  cache_.close(id);
  return std::nullopt;
}

void Scheduler::make_live(std::unique_ptr<Sequence> sequence, kv::SequenceId id, int64_t promised) {
  // Here and not before, so that a long queue holds no more than its prompts.
  sequence->tokens.reserve(static_cast<size_t>(std::min(
      sequence->final_total(), static_cast<int64_t>(sequence->tokens.size()) + kUsualAnswer)));
  sequence->kv = id;
  sequence->promised = promised;
  by_kv_[id] = sequence.get();
  insert_by_age(live_, std::move(sequence));
}

// What cannot fit even alone: before its first token an error, afterwards the end of its growth.
void Scheduler::refuse(std::unique_ptr<Sequence> sequence, int64_t bytes_needed) {
  if (sequence->generated() > 0) {
    finish(*sequence, FinishReason::kLength, std::nullopt, sequence->prompt_tokens());
    return;
  }
  finish(*sequence, FinishReason::kError,
         Error{ErrorCode::kTooLarge,
               outgrown(*sequence, bytes_needed, limits_.kv_budget, cache_.stats())},
         0);
}

void Scheduler::spawn(Sequence& parent, std::unique_ptr<Sequence> child) {
  if (static_cast<int32_t>(live_.size()) < limits_.max_live) {
    const kv::SequenceId id = cache_.fork(parent.kv);
    cache_.append(id, child->tokens.back());
    const int64_t total = wanted_total(*child);
    if (cache_.admit(id, total)) {
      make_live(std::move(child), id, total);
      return;
    }
    cache_.close(id);
  }
  enqueue(std::move(child));
}

// --- a step's rows

std::optional<int32_t> Scheduler::take_rows(Sequence& sequence, int32_t most) {
  const Clock::time_point before = Clock::now();
  const std::optional<int32_t> taken = cache_.reserve(sequence.kv, most);
  if (taken && !sequence.scheduled) sequence.scheduled = before;
  return taken;
}

// The rows of the step; empty: some sequence found no room.
std::optional<int32_t> Scheduler::try_reserve() {
  int32_t rows = 0;
  bool joined = false;
  const auto each = [&](bool decodes) {
    for (const auto& s : live_) {
      // Asked again before every reservation: an older sequence may have begun to write what this
      // one waits for.
      const kv::Progress p = cache_.progress(s->kv);
      const int64_t left = p.tokens - p.computed;
      if (p.blocked || (left == 1) != decodes) continue;
      const int32_t most =
          static_cast<int32_t>(std::min<int64_t>({left, limits_.slice, limits_.max_rows - rows}));
      if (most == 0) return true;
      const std::optional<int32_t> taken = take_rows(*s, most);
      if (taken) {
        rows += *taken;
      } else if (cache_.progress(s->kv).blocked) {
        joined = true;  // what another holds, and waits now for someone older who is there
      } else {
        return false;
      }
    }
    return true;
  };
  do {
    joined = false;
    if (!each(true) || !each(false)) return std::nullopt;
  } while (rows == 0 && joined);  // a join may free those that were asked before
  return rows;
}

int32_t Scheduler::reserve_rows() {
  while (!live_.empty()) {
    if (const std::optional<int32_t> rows = try_reserve()) {
      CHECK(*rows > 0);  // the cache leaves at least one live sequence unblocked
      return *rows;
    }
    cache_.abandon();
    make_room();
  }
  return 0;
}

void Scheduler::make_room() {
  Sequence& eldest = *live_.front();
  const int64_t needed = need_of(eldest).bytes;
  // Alone it waits for the pins that run out, if there is room for it then.
  const bool may_wait = cache_.stats().expiring_pins > 0 && needed <= limits_.kv_budget;
  if (live_.size() > 1 || may_wait) {
    preempt_youngest();
  } else if (eldest.generated() > 0) {
    end(eldest, FinishReason::kLength);
  } else {
    end(eldest, FinishReason::kError,
        Error{ErrorCode::kTooLarge, outgrown(eldest, needed, limits_.kv_budget, cache_.stats())});
  }
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> youngest = leave_cache(*live_.back());
  ++youngest->result.preemptions;
  ++preemptions_;
  enqueue(std::move(youngest));
}

Status Scheduler::set_budget(int64_t bytes) {
  if (bytes < 1 || bytes > limits_.kv_budget_limit) {
    return fail(ErrorCode::kInvalidArgument, "the KV budget cannot become " +
                                                 std::to_string(bytes) +
                                                 " bytes; this engine was opened for 1 to " +
                                                 std::to_string(limits_.kv_budget_limit));
  }
  if (const int64_t pinned = cache_.pinned_bytes(); pinned > bytes) {
    return fail(ErrorCode::kTooLarge, "pinned prefixes hold " + format_size(pinned) +
                                          ", more than the budget asked for, " +
                                          format_size(bytes) + "; unpin first");
  }
  limits_.kv_budget = bytes;
  room_changed_ = true;
  while (!cache_.set_budget(bytes)) {
    if (live_.empty()) {
      // Closing the last cut a pinned run in two, which takes a page more.
      limits_.kv_budget = std::min(cache_.pinned_bytes(), limits_.kv_budget_limit);
      cache_.set_budget(limits_.kv_budget);
      return fail(ErrorCode::kTooLarge, "pinned prefixes hold " + format_size(limits_.kv_budget) +
                                            ", which is the budget now; unpin first");
    }
    preempt_youngest();
  }
  return {};
}

}  // namespace coppice::engine
