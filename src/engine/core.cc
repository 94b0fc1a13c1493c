#include "engine/core.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace coppice::engine {
namespace {

// The slice ends with the sequence's last token, so its last row says what follows.
bool completes(const kv::Slice& slice, const Sequence& sequence) {
  return slice.position + (slice.row_end - slice.row_begin) ==
         static_cast<int64_t>(sequence.tokens.size());
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? 1.0 : sum / static_cast<double>(values.size());
}

std::optional<Error> error_of(FinishReason end) {
  if (end != FinishReason::kError) return std::nullopt;
  return Error{
      ErrorCode::kInternal,
      "the model's logits are not finite; its weights are broken or do not fit its config"};
}

}  // namespace

Core::Core(Parts parts, const Limits& limits, kv::Partition partition)
    : parts_(std::move(parts)),
      limits_(limits),
      partition_(partition),
      scheduler_(*parts_.cache, limits),
      profile_(parts_.profile) {
  owners_.reserve(static_cast<size_t>(limits.max_rows));
  logit_rows_.reserve(static_cast<size_t>(limits.max_rows));
}

void Core::submit(std::shared_ptr<const Submission> submission) {
  auto first = std::make_unique<Sequence>(submission, 0, *parts_.tokenizer);
  for (int32_t choice = 1; choice < submission->sampling.n; ++choice) {
    first->unborn.push_back(std::make_unique<Sequence>(submission, choice, *parts_.tokenizer));
  }
  scheduler_.enqueue(std::move(first));
}

bool Core::step(double now_seconds) {
  profile_.begin();
  parts_.cache->expire(now_seconds);
  scheduler_.admit();
  stalled_ = scheduler_.reserve_rows() == 0;
  if (stalled_) return !scheduler_.idle();
  kv::Step& step = parts_.cache->plan(partition_);
  observe_peak(step);
  choose_logit_rows(step);
  const auto rows = static_cast<int64_t>(step.tokens.size());
  profile_.lap(StepProfile::kPlan);
  const TensorView logits = run_model(step);
  count_evaluated(step);
  profile_.lap(StepProfile::kModel);
  deliver(step, logits);
  profile_.lap(StepProfile::kSampling);
  parts_.cache->commit();
  for (Outcome& outcome : outcomes_) apply(outcome);
  profile_.lap(StepProfile::kCommit);
  profile_.end_step(rows);
  return !scheduler_.idle();
}

// Pages are held from the reservation on, so a step's peak lies before its commit.
void Core::observe_peak(const kv::Step& step) {
  const kv::KvStats kv = parts_.cache->stats();
  const bool rises = std::ranges::any_of(
      scheduler_.live(), [&](const auto& s) { return kv.bytes_held > s->result.kv.bytes_held; });
  if (!rises && kv.bytes_held <= stats_.peak.bytes_held) return;
  int64_t unshared = 0;
  double computed = 0, kept = 0;
  for (const auto& s : scheduler_.live()) {
    const int64_t own = parts_.cache->progress(s->kv).computed;
    if (parts_.gate == nullptr) {
      unshared += own * kv.bytes_per_token;
      continue;
    }
    // Under a gate the path's bytes, with what is reserved for the step.
    const auto footprint = parts_.cache->footprint(s->kv);
    const bool gated = s->submission().tier != nullptr;
    unshared += gated ? footprint.bytes : own * kv.bytes_per_token;
    computed += static_cast<double>(own);
    kept += static_cast<double>(own) * mean(footprint.keep_ratio);
  }
  for (const kv::Slice& slice : step.slices) {
    if (scheduler_.find(slice.sequence).submission().tier != nullptr) continue;
    unshared += (slice.row_end - slice.row_begin) * kv.bytes_per_token;
  }
  KvReceipt now;
  if (parts_.gate != nullptr) now.keep_ratio = computed > 0 ? kept / computed : 1.0;
  now.bytes_held = kv.bytes_held;
  now.bytes_reclaimable = kv.bytes_reclaimable;
  now.bytes_unshared = unshared;
  if (now.bytes_held > stats_.peak.bytes_held) stats_.peak = now;
  for (const auto& s : scheduler_.live()) s->observe_peak(now);
}

void Core::choose_logit_rows(const kv::Step& step) {
  owners_.assign(step.tokens.size(), 0);
  logit_rows_.clear();
  row_counts_.clear();
  for (size_t i = 0; i < step.slices.size(); ++i) {
    const kv::Slice& slice = step.slices[i];
    const Sequence& s = scheduler_.find(slice.sequence);
    const size_t before = logit_rows_.size();
    for (int32_t row = slice.row_begin; row < slice.row_end; ++row) {
      owners_[static_cast<size_t>(row)] = static_cast<int32_t>(i);
      const int64_t position = slice.position + (row - slice.row_begin);
      const bool of_prompt = s.submission().prompt_logits && position < s.prompt_tokens();
      const bool last = row + 1 == slice.row_end && completes(slice, s);
      if (of_prompt || last) logit_rows_.push_back(row);
    }
    row_counts_.push_back(static_cast<int32_t>(logit_rows_.size() - before));
  }
}

TensorView Core::run_model(kv::Step& step) {
  evaluated_.assign(step.slices.size(), 0);
  const model::ForwardInput input{.tokens = step.tokens,
                                  .positions = step.positions,
                                  .owners = owners_,
                                  .evaluated = evaluated_,
                                  .logit_rows = logit_rows_,
                                  .plan = step.plan,
                                  .arena = parts_.cache->arena(),
                                  .gate = parts_.gate.get(),
                                  .gated = &step.gate};
  return parts_.model->forward(input);
}

void Core::count_evaluated(const kv::Step& step) {
  stats_.steps += 1;
  stats_.max_step_rows = std::max(stats_.max_step_rows, static_cast<int64_t>(step.tokens.size()));
  stats_.max_step_sequences =
      std::max(stats_.max_step_sequences, static_cast<int64_t>(step.slices.size()));
  for (size_t i = 0; i < step.slices.size(); ++i) {
    const kv::Slice& slice = step.slices[i];
    stats_.rows += evaluated_[i];
    stats_.longest_slice = std::max(stats_.longest_slice, evaluated_[i]);
    scheduler_.find(slice.sequence).count_evaluated(slice.position, evaluated_[i]);
  }
}

// Hands every wanted row to its sequence and samples where a sequence is complete.
void Core::deliver(const kv::Step& step, const TensorView& logits) {
  outcomes_.clear();
  const int64_t vocab = parts_.model->config().vocab_size;
  const Clock::time_point now = Clock::now();
  const float* row_logits = logit_rows_.empty() ? nullptr : logits.f32();
  size_t next = 0;
  for (size_t i = 0; i < step.slices.size(); ++i) {
    const kv::Slice& slice = step.slices[i];
    Sequence& s = scheduler_.find(slice.sequence);
    const Submission& submission = s.submission();
    for (int32_t k = 0; k < row_counts_[i]; ++k, ++next, row_logits += vocab) {
      const int64_t position = slice.position + (logit_rows_[next] - slice.row_begin);
      if (submission.observer) {
        submission.observer->on_logits(submission.id, s.result.choice, position, row_logits, vocab);
      }
      if (position + 1 != static_cast<int64_t>(s.tokens.size())) continue;
      const std::span<const float> row(row_logits, static_cast<size_t>(vocab));
      Outcome outcome{&s, {}, {}};
      for (const auto& child : s.unborn) {
        child->scheduled = s.scheduled;
        child->result.kv = s.result.kv;
        outcome.unborn_ends.push_back(next_token(*child, row, now));
      }
      outcome.end = next_token(s, row, now);
      outcomes_.push_back(std::move(outcome));
    }
  }
}

std::optional<FinishReason> Core::next_token(Sequence& sequence, std::span<const float> logits,
                                             Clock::time_point now) {
  const Sampling& sampling = sequence.sampling();
  const bool early = sequence.generated() < sampling.min_tokens;
  std::span<const TokenId> banned;
  if (early) banned = sequence.submission().stop_tokens;
  const std::optional<TokenId> token =
      sample(sampling, sequence.submission().seed, sequence.result.choice, sequence.generated(),
             logits, banned, scratch_);
  if (!token) return FinishReason::kError;
  std::optional<TokenLogprob> logprob;
  if (sampling.logprobs) logprob = token_logprob(logits, *token, sampling.top_logprobs, scratch_);
  return sequence.take(*token, std::move(logprob), limits_.ctx, now);
}

// The forks come before the parent's own token is appended: they share everything up to it.
void Core::apply(Outcome& outcome) {
  Sequence& s = *outcome.sequence;
  // For choices that end here or find no place beside it: it was their prompt too.
  if (!s.unborn.empty()) s.note_footprint(parts_.cache->footprint(s.kv));
  std::vector<std::unique_ptr<Sequence>> children = std::exchange(s.unborn, {});
  for (size_t i = 0; i < children.size(); ++i) {
    if (outcome.unborn_ends[i]) {
      scheduler_.end_unborn(*children[i], *outcome.unborn_ends[i],
                            error_of(*outcome.unborn_ends[i]));
    } else {
      scheduler_.spawn(s, std::move(children[i]));
    }
  }
  if (outcome.end) {
    scheduler_.end(s, *outcome.end, error_of(*outcome.end));
  } else {
    parts_.cache->append(s.kv, s.tokens.back());
  }
}

// --- administration

Expected<PinInfo> Core::pin(const kv::Scope& scope, const std::vector<TokenId>& tokens,
                            double ttl_seconds) {
  kv::KvCache& cache = *parts_.cache;
  const int64_t before = cache.overpromised_pages();
  const kv::KvCache::Pin pin = cache.pin(scope, tokens, ttl_seconds);
  if (cache.overpromised_pages() > before) {
    cache.unpin(pin.id);
    return fail(ErrorCode::kOverloaded,
                "no room now to pin " + std::to_string(pin.tokens) +
                    " tokens: running requests were promised their memory; try again later");
  }
  return PinInfo{pin.id, pin.tokens};
}

bool Core::unpin(uint64_t pin) {
  scheduler_.room_changed();
  return parts_.cache->unpin(pin);
}

void Core::flush() {
  parts_.cache->flush();
  scheduler_.room_changed();
}

EngineStats Core::stats() const {
  EngineStats out = stats_;
  const kv::KvStats kv = parts_.cache->stats();
  out.finished = scheduler_.finished();
  out.preemptions = scheduler_.preemptions();
  out.live = static_cast<int64_t>(scheduler_.live().size());
  out.waiting = static_cast<int64_t>(scheduler_.waiting());
  out.kv_budget = scheduler_.budget();
  out.pages_total = kv.pages_total;
  out.pages_free = kv.pages_free;
  out.page_bytes = kv.page_bytes;
  out.bytes_held = kv.bytes_held;
  out.bytes_per_token = kv.bytes_per_token;
  out.tokens_held = kv.tokens_held;
  out.nodes = kv.nodes;
  out.pins = kv.pins;
  out.references = kv.references;
  out.tokens_reclaimed = kv.tokens_reclaimed;
  out.tokens_copied = kv.tokens_copied;
  out.overlays = kv.overlays;
  out.overlays_freed = kv.overlays_freed;
  out.tokens_thinned = kv.tokens_thinned;
  out.pages_thinned = kv.pages_thinned;
  return out;
}

}  // namespace coppice::engine
