#include "attention_summary.h"

#include <cstdio>

#include "bench_flags.h"

namespace coppice::tools {

using nlohmann::ordered_json;

void AttentionSummary::add(const PresetRow& row, AttentionMeasured measured) {
  const double fraction = measured.json["floor_fraction"];
  cases_.push_back({row.name, row.origin, fraction, std::move(measured)});
}

void AttentionSummary::hold_against(const Ceilings& ceilings) {
  for (Case& one : cases_) tools::hold_against(ceilings, one.measured);
}

ordered_json AttentionSummary::json(const std::string& preset) const {
  std::vector<double> floor, floor_p10, ideal, shared, unshared;
  ordered_json fractions = ordered_json::array();
  for (const Case& one : cases_) {
    const ordered_json& line = one.measured.json;
    fractions.push_back({{"name", one.name},
                         {"origin", one.origin},
                         {"floor_fraction", line["floor_fraction"]},
                         {"floor_fraction_p10", line["floor_fraction_p10"]}});
    floor.push_back(line["floor_fraction"]);
    floor_p10.push_back(line["floor_fraction_p10"]);
    ideal.push_back(line["ideal_fraction"]);
    shared.push_back(shared_page_ratio(line));
    if (line["per_sequence_unshared_us"].is_null()) continue;
    unshared.push_back(line["per_sequence_unshared_us"].get<double>() /
                       line["two_phase_us"].get<double>());
  }
  const auto mean = [](const std::vector<double>& values) {
    return values.empty() ? ordered_json() : ordered_json(geometric_mean(values));
  };
  ordered_json summary{{"preset", preset}, {"cases", cases_.size()}};
  summary["floor_fraction"] = mean(floor);
  summary["floor_fraction_p10"] = mean(floor_p10);
  summary["ideal_fraction"] = mean(ideal);
  summary["best_shared_pages_ratio"] = mean(shared);
  summary["unshared_ratio"] = mean(unshared);
  summary["unshared_cases"] = unshared.size();  // copies of the others do not fit the memory
  summary["floor_fractions"] = std::move(fractions);
  return {{"summary", std::move(summary)}};
}

void AttentionSummary::print(const std::string& preset) const {
  const ordered_json line = json(preset);
  const ordered_json& s = line["summary"];
  const auto number = [&](const char* key) {
    char text[32] = "-";
    if (!s[key].is_null()) std::snprintf(text, sizeof(text), "%.2f", s[key].get<double>());
    return std::string(text);
  };
  print_text_line(
      "geometric means of %d cases: floor fraction %s (at p10 %s), ideal fraction %s; best way "
      "over shared pages %sx and private copies (%d cases that fit the memory) %sx two-phase's "
      "time",
      s["cases"].get<int>(), number("floor_fraction").c_str(), number("floor_fraction_p10").c_str(),
      number("ideal_fraction").c_str(), number("best_shared_pages_ratio").c_str(),
      s["unshared_cases"].get<int>(), number("unshared_ratio").c_str());
  for (const Case& one : cases_) {
    const double now = one.measured.json["floor_fraction"];
    if (one.floor_fraction - now < 0.01) continue;
    print_text_line("%-52s floor fraction %.2f against the ceilings known at the end",
                    one.name.c_str(), now);
  }
}

}  // namespace coppice::tools
