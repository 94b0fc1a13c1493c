#include "result_json.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

ordered_json usage_json(const Usage& usage) {
  ordered_json out = {{"prompt_tokens", usage.prompt_tokens},
                      {"completion_tokens", usage.completion_tokens},
                      {"cached_tokens", usage.cached_tokens},
                      {"evaluated_tokens", usage.evaluated_tokens}};
  if (!usage.keep_ratio.empty()) {
    out["keep_ratio"] = usage.keep_ratio;
    out["kv_bytes"] = usage.kv_bytes;
    out["thinned_tokens"] = usage.thinned_tokens;
    out["kv_epoch"] = usage.kv_epoch;
  }
  return out;
}

ordered_json kv_json(const KvReceipt& kv) {
  ordered_json out = {{"bytes_held", kv.bytes_held},
                      {"bytes_reclaimable", kv.bytes_reclaimable},
                      {"bytes_unshared", kv.bytes_unshared},
                      {"sharing_factor", kv.sharing_factor()}};
  if (kv.keep_ratio) out["keep_ratio"] = *kv.keep_ratio;
  return out;
}

ordered_json logprobs_json(const std::vector<TokenLogprob>& logprobs) {
  ordered_json out = ordered_json::array();
  for (const TokenLogprob& entry : logprobs) {
    ordered_json top = ordered_json::array();
    for (const auto& [token, logprob] : entry.top) {
      top.push_back({{"token", token}, {"logprob", logprob}});
    }
    out.push_back({{"token", entry.token}, {"logprob", entry.logprob}, {"top", std::move(top)}});
  }
  return out;
}

}  // namespace

std::string_view error_code_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kUnsupported:
      return "unsupported";
    case ErrorCode::kTooLarge:
      return "too_large";
    case ErrorCode::kOverloaded:
      return "overloaded";
    case ErrorCode::kCancelled:
      return "cancelled";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

ordered_json result_json(const nlohmann::json& id, int64_t index, const Result& result) {
  ordered_json out;
  out["id"] = id;
  out["index"] = index;
  out["text"] = result.text;
  out["tokens"] = result.tokens;
  out["finish_reason"] = finish_reason_name(result.finish_reason);
  if (result.error) {
    out["error"] = {{"code", error_code_name(result.error->code)},
                    {"message", result.error->message}};
  }
  if (!result.logprobs.empty()) out["logprobs"] = logprobs_json(result.logprobs);
  out["usage"] = usage_json(result.usage);
  out["timings"] = {{"ttft", result.timings.ttft},
                    {"prefill", result.timings.prefill},
                    {"decode", result.timings.decode},
                    {"tokens_per_second", result.timings.tokens_per_second}};
  out["kv"] = kv_json(result.kv);
  return out;
}

void Totals::add(const Result& result) {
  errors += result.finish_reason == FinishReason::kError ? 1 : 0;
  cancelled += result.finish_reason == FinishReason::kCancelled ? 1 : 0;
  usage.prompt_tokens += result.usage.prompt_tokens;
  usage.completion_tokens += result.usage.completion_tokens;
  usage.cached_tokens += result.usage.cached_tokens;
  usage.evaluated_tokens += result.usage.evaluated_tokens;
}

ordered_json summary_json(const Totals& totals) {
  const double seconds = totals.wall_ms / 1000.0;
  const double rate =
      seconds > 0.0 ? static_cast<double>(totals.usage.completion_tokens) / seconds : 0.0;
  ordered_json summary;
  summary["requests"] = totals.requests;
  summary["errors"] = totals.errors;
  summary["usage"] = usage_json(totals.usage);
  summary["timings"] = {{"wall_ms", totals.wall_ms}, {"tokens_per_second", rate}};
  summary["kv"] = kv_json(totals.kv);
  return {{"summary", std::move(summary)}};
}

std::string one_line(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace coppice::tools
