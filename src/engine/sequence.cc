#include "engine/sequence.h"

#include <algorithm>
#include <utility>

namespace coppice::engine {
namespace {

double milliseconds(Clock::duration span) {
  return std::chrono::duration<double, std::milli>(span).count();
}

}  // namespace

Sequence::Sequence(std::shared_ptr<const Submission> submission, int32_t choice,
                   const text::Tokenizer& tokenizer)
    : submission_(std::move(submission)),
      text_(tokenizer, submission_->sampling),
      prompt_evaluated_(submission_->prompt.size(), false) {
  tokens = submission_->prompt;
  result.id = submission_->id;
  result.choice = choice;
  result.usage.prompt_tokens = prompt_tokens();
}

bool Sequence::older_than(const Sequence& other) const {
  if (result.id != other.result.id) return result.id < other.result.id;
  return result.choice < other.result.choice;
}

bool Sequence::is_stop_token(TokenId token) const {
  const auto& stops = submission_->stop_tokens;
  return std::find(stops.begin(), stops.end(), token) != stops.end();
}

void Sequence::count_evaluated(int64_t position, int64_t rows) {
  result.usage.evaluated_tokens += rows;
  const int64_t end = std::min(position + rows, prompt_tokens());
  for (int64_t i = position; i < end; ++i) prompt_evaluated_[static_cast<size_t>(i)] = true;
}

std::optional<FinishReason> Sequence::take(TokenId token, std::optional<TokenLogprob> logprob,
                                           int64_t ctx, Clock::time_point now) {
  if (generated() == 0) first_token_ = now;
  last_token_ = now;
  tokens.push_back(token);
  const bool watch = generated() >= sampling().min_tokens;
  const StopMatcher::Output piece = text_.push(token, watch);
  result.text += piece.text;
  const TokenLogprob* shown = nullptr;
  if (logprob) shown = &result.logprobs.emplace_back(std::move(*logprob));
  Verdict verdict = Verdict::kContinue;
  if (submission_->observer) {
    verdict = submission_->observer->on_token(
        TokenEvent{result.id, result.choice, token, piece.text, shown});
  }
  if (verdict == Verdict::kCancel) return FinishReason::kCancelled;
  if (verdict == Verdict::kStop || piece.stopped || (watch && is_stop_token(token))) {
    stopped_by_text_ = piece.stopped;
    return FinishReason::kStop;
  }
  if (generated() >= sampling().max_tokens || static_cast<int64_t>(tokens.size()) >= ctx) {
    return FinishReason::kLength;
  }
  return std::nullopt;
}

void Sequence::finish(FinishReason reason, std::optional<Error> error, int64_t held) {
  result.finish_reason = reason;
  result.error = std::move(error);
  result.tokens.assign(tokens.begin() + prompt_tokens(), tokens.end());
  const std::string rest = stopped_by_text_ ? std::string() : text_.finish();
  result.text += rest;

  Usage& usage = result.usage;
  usage.completion_tokens = generated();
  const int64_t evaluated = std::count(prompt_evaluated_.begin(), prompt_evaluated_.end(), true);
  usage.cached_tokens = std::max<int64_t>(0, std::min(held, prompt_tokens()) - evaluated);

  Timings& timings = result.timings;
  if (generated() > 0) {
    timings.ttft = milliseconds(first_token_ - submission_->submitted);
    timings.prefill = milliseconds(first_token_ - scheduled.value_or(submission_->submitted));
    timings.decode = milliseconds(last_token_ - first_token_);
    if (generated() > 1 && timings.decode > 0.0) {
      timings.tokens_per_second = static_cast<double>(generated() - 1) / (timings.decode / 1000.0);
    }
  }
  if (submission_->observer) submission_->observer->on_finish(result, rest);
}

void Sequence::note_footprint(const kv::KvCache::Footprint& footprint) {
  for (const auto& child : unborn) child->note_footprint(footprint);
  Usage& usage = result.usage;
  if (submission_->tier != nullptr) usage.keep_ratio = footprint.keep_ratio;
  usage.kv_bytes = footprint.bytes;
  usage.thinned_tokens = usage.kv_epoch = 0;
  for (const kv::KvCache::Thinned& run : footprint.thinned) {
    const int64_t of_prompt = std::min(run.end, prompt_tokens()) - run.begin;
    if (of_prompt <= 0) continue;  // its own answer, thinned while it was set aside
    usage.thinned_tokens += of_prompt;
    usage.kv_epoch = std::max(usage.kv_epoch, run.epoch);
  }
}

kv::OpenOptions Sequence::open_options() const {
  const Submission& s = submission();
  return {.tier = s.tier.get(), .boundaries = s.boundaries, .prompt = prompt_tokens()};
}

std::vector<TokenId> Sequence::keys() const {
  std::vector<TokenId> out = tokens;
  if (submission().tier == nullptr) return out;
  for (const TokenRange& range : submission().exact) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      out[static_cast<size_t>(i)] |= kv::kExactToken;
    }
  }
  return out;
}

}  // namespace coppice::engine
