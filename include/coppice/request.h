// What:    what a caller asks of the engine and what comes back: request, events, result, receipt.
// Owns:    plain values; an observer belongs to whoever submits it, shared with the engine.
// Threads: values are copied between threads; observers are called on the engine's thread.
// Fails:   validate: kInvalidArgument naming the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coppice/error.h"
#include "coppice/options.h"

namespace coppice {

using TokenId = int32_t;
using RequestId = uint64_t;  // never reused; 0 is no request

// Field names are those of the JSON interface.
struct Sampling {
  double temperature = 0.0;      // 0: the likeliest token, ties to the lowest id
  int32_t top_k = 0;             // 0 or -1: all
  double top_p = 1.0;            // (0, 1]
  double min_p = 0.0;            // [0, 1]: least probability relative to the likeliest token's
  std::optional<uint64_t> seed;  // default: derived from the engine's seed and the request's number
  int32_t max_tokens = 256;
  int32_t min_tokens = 0;         // no stop token is drawn and no stop string counts before
  std::vector<std::string> stop;  // matched over decoded text, across token borders
  std::vector<TokenId> stop_token_ids;
  bool include_stop_str_in_output = false;
  bool ignore_eos = false;  // the model's own end tokens do not stop
  bool logprobs = false;
  int32_t top_logprobs = 0;  // 0..20 alternatives beside the chosen token; needs logprobs
  int32_t n = 1;             // choices grown from one prefill
};

// Tokens [begin, end) of a prompt.
struct TokenRange {
  int64_t begin = 0, end = 0;
};

struct Request {
  std::variant<std::string, std::vector<TokenId>> prompt;
  Sampling sampling;
  std::string cache_salt;         // requests share prefixes only within one salt
  std::optional<KvTier> kv_tier;  // default: the engine's
  // Under a gate: share prefixes with requests that allow it too, and under memory pressure lose a
  // part of those that nobody uses rather than all.
  KvThinning kv_thinning = KvThinning::kRefuse;
  std::vector<TokenRange> exact;    // of the prompt: no gate may drop these
  std::vector<int64_t> boundaries;  // where later prompts are likely to part: ends of messages
  bool prompt_logits = false;       // Observer::on_logits for the evaluated prompt rows too
};

Status validate(const Sampling& sampling);

enum class FinishReason { kStop, kLength, kCancelled, kError };
std::string_view finish_reason_name(FinishReason reason);  // "stop", "length", ...

// Natural logarithms of the model's own distribution: before temperature, cuts and bans.
struct TokenLogprob {
  TokenId token = 0;
  double logprob = 0.0;
  std::vector<std::pair<TokenId, double>> top;  // likeliest first, ties to the lowest id
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t cached_tokens = 0;     // prompt tokens this request did not evaluate
  int64_t evaluated_tokens = 0;  // rows that entered the embedding for it
  // Under a gate: what was kept of its computed tokens, per layer, when it was last in the cache;
  // empty: no gate, or it never was.
  std::vector<double> keep_ratio = {};
  int64_t kv_bytes = 0;  // of its path's keys and values then, shared or not
  // With kv_thinning allowed: prompt tokens of prefixes that had been thinned, and how often the
  // most thinned of them was.
  int64_t thinned_tokens = 0;
  int32_t kv_epoch = 0;
};

// Milliseconds.
struct Timings {
  double ttft = 0.0;     // submit to first token
  double prefill = 0.0;  // first scheduled to first token
  double decode = 0.0;   // first to last token
  double tokens_per_second = 0.0;
};

// At the instant of the largest bytes_held while the request was live.
struct KvReceipt {
  int64_t bytes_held = 0;         // all pages not free
  int64_t bytes_reclaimable = 0;  // of them, what no live request uses: kept for later ones
  // Sum over live requests of what each would hold alone: tokens x bytes per token, in a gated tier
  // the bytes of its path.
  int64_t bytes_unshared = 0;
  // With a gate loaded: what is kept of the live requests' computed tokens.
  std::optional<double> keep_ratio = {};
  // What live requests would hold alone over what they hold together.
  double sharing_factor() const {
    const int64_t used = bytes_held - bytes_reclaimable;
    return used > 0 ? static_cast<double>(bytes_unshared) / static_cast<double>(used) : 0.0;
  }
};

struct Result {
  RequestId id = 0;
  int32_t choice = 0;  // 0..n-1
  std::string text;
  std::vector<TokenId> tokens;  // generated, a stop token included
  FinishReason finish_reason = FinishReason::kStop;
  std::optional<Error> error;  // with kError
  std::vector<TokenLogprob> logprobs;
  Usage usage;
  Timings timings;
  KvReceipt kv;
  int32_t preemptions = 0;  // times it was set aside and resumed
};

struct TokenEvent {
  RequestId id = 0;
  int32_t choice = 0;
  TokenId token = 0;
  std::string_view text;                  // what became certain with this token, maybe nothing
  const TokenLogprob* logprob = nullptr;  // if asked for
};

enum class Verdict { kContinue, kStop, kCancel };

// Called on the engine's thread, so quick and never back into the engine.
class Observer {
 public:
  virtual ~Observer() = default;
  // After a token was sampled; may end the sequence in this step.
  virtual Verdict on_token(const TokenEvent&) { return Verdict::kContinue; }
  // Logits [V] of an evaluated row whose successor is sampled (or any prompt row, if asked for);
  // position counts from the start of the prompt.
  virtual void on_logits(RequestId, int32_t /*choice*/, int64_t /*position*/,
                         const float* /*logits*/, int64_t /*vocab*/) {}
  // Once per choice. rest: text that no event carried.
  virtual void on_finish(const Result&, std::string_view /*rest*/) {}
};

}  // namespace coppice
