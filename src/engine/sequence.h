// What:    one choice of one request on its way through the engine.
// Owns:    its tokens, its text, its place in the cache by id, the result as it grows.
// Threads: the engine's.
// Fails:   never.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coppice/request.h"
#include "engine/output_text.h"
#include "kv/kv_cache.h"

namespace coppice::engine {

using Clock = std::chrono::steady_clock;

// What all choices of a request have in common.
struct Submission {
  RequestId id = 0;
  std::vector<TokenId> prompt;  // encoded and checked
  Sampling sampling;
  kv::Scope scope;
  std::shared_ptr<const kv::Tier> tier;  // null: off
  std::vector<TokenRange> exact;         // ascending, apart
  std::vector<int64_t> boundaries;       // ascending
  uint64_t seed = 0;
  bool prompt_logits = false;
  std::vector<TokenId> stop_tokens;  // stop_token_ids, and the model's own unless ignored
  std::shared_ptr<Observer> observer;
  Clock::time_point submitted;
};

class Sequence {
 public:
  Sequence(std::shared_ptr<const Submission> submission, int32_t choice,
           const text::Tokenizer& tokenizer);

  const Submission& submission() const { return *submission_; }
  const Sampling& sampling() const { return submission_->sampling; }
  // Arrival order: requests by number, choices of one by theirs.
  bool older_than(const Sequence& other) const;

  int64_t prompt_tokens() const { return static_cast<int64_t>(submission_->prompt.size()); }
  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens(); }
  // What the cache is asked with.
  kv::OpenOptions open_options() const;
  std::vector<TokenId> keys() const;  // its tokens, those marked that no gate may drop
  // The most tokens it may come to hold.
  int64_t final_total() const { return prompt_tokens() + sampling().max_tokens; }
  bool is_stop_token(TokenId token) const;

  // `rows` prompt or generated tokens from `position` on entered the embedding for it.
  void count_evaluated(int64_t position, int64_t rows);
  // Takes a sampled token: text, stop conditions, observer. ctx: the most tokens of a sequence.
  // The reason it ends with, if it does.
  std::optional<FinishReason> take(TokenId token, std::optional<TokenLogprob> logprob, int64_t ctx,
                                   Clock::time_point now);
  // Completes the result and tells the observer; held: leading tokens in the cache at the end.
  void finish(FinishReason reason, std::optional<Error> error, int64_t held);
  // What is held of its tokens, for its usage; the choices that are to fork off it read the same.
  void note_footprint(const kv::KvCache::Footprint& footprint);
  void observe_peak(const KvReceipt& now) {
    if (now.bytes_held > result.kv.bytes_held) result.kv = now;
  }

  std::vector<TokenId> tokens;                    // prompt, then generated
  kv::SequenceId kv = 0;                          // 0: not in the cache
  int64_t promised = 0;                           // tokens that the cache promised room for
  std::optional<Clock::time_point> scheduled;     // first time it took rows
  std::vector<std::unique_ptr<Sequence>> unborn;  // choices that fork off at the first token
  Result result;

 private:
  std::shared_ptr<const Submission> submission_;
  OutputText text_;
  std::vector<bool> prompt_evaluated_;  // [prompt]
  bool stopped_by_text_ = false;
  Clock::time_point first_token_, last_token_;
};

}  // namespace coppice::engine
