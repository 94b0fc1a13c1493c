// What:    results as the JSON lines that `generate` prints.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never; text that is not UTF-8 gets U+FFFD.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

#include "coppice/request.h"

namespace coppice::tools {

std::string_view error_code_name(ErrorCode code);  // "invalid_argument", ...

// index: of the output line, from 0. The keys stand in the documented order.
nlohmann::ordered_json result_json(const nlohmann::json& id, int64_t index, const Result& result);

struct Totals {
  int64_t requests = 0;
  int64_t errors = 0;
  int64_t cancelled = 0;
  Usage usage;
  double wall_ms = 0.0;
  KvReceipt kv;
  void add(const Result& result);
};
nlohmann::ordered_json summary_json(const Totals& totals);

std::string one_line(const nlohmann::ordered_json& value);

}  // namespace coppice::tools
