// What:    outcomes of a comparison of policies as JSON lines, and what they amount to as JSON,
//          Markdown and a chart.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   outcome_of: kCorrupt for a line that outcome_json did not write.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "eviction/summary.h"

namespace coppice::tools {

nlohmann::ordered_json outcome_json(const eviction::Outcome& outcome);
Expected<eviction::Outcome> outcome_of(const std::string& line);

// What a report says of where its figures come from.
struct ReportHead {
  std::string command, model, machine, date;
  int window = 16, sinks = 4;
};

nlohmann::ordered_json policy_json(const ReportHead& head,
                                   const std::vector<eviction::Outcome>& outcomes);
std::string policy_markdown(const ReportHead& head, const std::vector<eviction::Outcome>& outcomes);
// Accuracy against bytes held, over tasks whose haystack is h1 or h2.
std::string policy_svg(const std::vector<eviction::Outcome>& outcomes);
// A line for a terminal.
std::string outcome_text(const eviction::Outcome& outcome);

}  // namespace coppice::tools
