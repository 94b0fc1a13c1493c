#include "coppice/request.h"

#include <cmath>

namespace coppice {
namespace {

constexpr int32_t kMaxTokens = 1 << 24;
constexpr int32_t kMaxChoices = 128;
constexpr int32_t kMaxTopLogprobs = 20;
constexpr size_t kMaxStops = 64;
constexpr size_t kMaxStopBytes = 1024;

Status range(const char* field, double value, double least, double most, bool open_below) {
  const bool above = open_below ? value > least : value >= least;
  if (std::isfinite(value) && above && value <= most) return {};
  char text[160];
  std::snprintf(text, sizeof text, "%s is %g; it takes %s%g to %g", field, value,
                open_below ? "more than " : "", least, most);
  return fail(ErrorCode::kInvalidArgument, text);
}

Status whole(const char* field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return {};
  return fail(ErrorCode::kInvalidArgument, std::string(field) + " is " + std::to_string(value) +
                                               "; it takes " + std::to_string(least) + " to " +
                                               std::to_string(most));
}

}  // namespace

std::string_view finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kError:
      return "error";
  }
  return "error";
}

Status validate(const Sampling& s) {
  TRY_STATUS(range("temperature", s.temperature, 0.0, 100.0, false));
  TRY_STATUS(whole("top_k", s.top_k, -1, kMaxTokens));
  TRY_STATUS(range("top_p", s.top_p, 0.0, 1.0, true));
  TRY_STATUS(range("min_p", s.min_p, 0.0, 1.0, false));
  TRY_STATUS(whole("max_tokens", s.max_tokens, 1, kMaxTokens));
  TRY_STATUS(whole("min_tokens", s.min_tokens, 0, s.max_tokens));
  TRY_STATUS(whole("n", s.n, 1, kMaxChoices));
  TRY_STATUS(whole("top_logprobs", s.top_logprobs, 0, kMaxTopLogprobs));
  if (s.top_logprobs > 0 && !s.logprobs) {
    return fail(ErrorCode::kInvalidArgument, "top_logprobs needs logprobs: true");
  }
  if (s.stop.size() > kMaxStops) {
    return fail(ErrorCode::kInvalidArgument, "stop has " + std::to_string(s.stop.size()) +
                                                 " strings; it takes up to " +
                                                 std::to_string(kMaxStops));
  }
  for (const std::string& stop : s.stop) {
    if (stop.empty() || stop.size() > kMaxStopBytes) {
      return fail(ErrorCode::kInvalidArgument,
                  "stop holds a string of " + std::to_string(stop.size()) +
                      " bytes; each takes 1 to " + std::to_string(kMaxStopBytes));
    }
  }
  return {};
}

}  // namespace coppice
