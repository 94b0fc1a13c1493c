// What:    lines of a batch file as requests, each judged on its own.
// Owns:    plain values.
// Threads: one.
// Fails:   a bad line is an Error in its place, naming line and field; the others stand.
//
// {"id"?, "prompt": string | [ids], sampling fields...}; null means "as if absent".
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "coppice/request.h"

namespace coppice::tools {

struct BatchItem {
  int64_t line = 0;   // from 1
  nlohmann::json id;  // as the line gave it; null without one
  Expected<Request> request;
};

struct BatchFile {
  std::vector<BatchItem> items;
  std::map<std::string, int64_t> unknown_fields;  // ignored; the first line that has each
};

// defaults: sampling and salt of lines that do not say. Blank lines are skipped.
BatchFile parse_batch(std::string_view text, const Request& defaults);

}  // namespace coppice::tools
