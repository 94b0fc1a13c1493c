// What:    what `bench paper` measured, as a page of Markdown and two charts.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never.
//
// report: {"date", "machine", "command", "scale", "ceilings": {...}, "table1": [...], "table3":
// [...], "figure3": [...]}; the rows are those of paper_run.h.
#pragma once

#include <string>

#include <nlohmann/json.hpp>

namespace coppice::tools {

std::string paper_markdown(const nlohmann::ordered_json& report);
std::string table3_svg(const nlohmann::ordered_json& report);
std::string figure3_svg(const nlohmann::ordered_json& report);

}  // namespace coppice::tools
