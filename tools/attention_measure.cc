#include "attention_measure.h"

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

struct Way {
  std::string key;
  std::function<void()> run;  // none: not possible here
  Samples us = {};
};

// All ways in turn, round after round, so that what disturbs the machine disturbs all of them.
void time_ways(std::vector<Way>& ways, const Effort& effort) {
  for (Way& way : ways) {
    if (way.run) way.run();
  }
  spend(effort, [&] {
    for (Way& way : ways) {
      if (!way.run) continue;
      const Stopwatch call;
      way.run();
      way.us.add(call.us());
    }
  });
}

struct Floors {
  PlanCost total;
  double floor_us = 0, ideal_us = 0;
};

Floors floors_of(const std::vector<PlanCost>& segments, double peak, const Ceilings& ceilings) {
  Floors floors;
  const auto compute_us = [&](const PlanCost& cost) {
    return (cost.flops / peak + cost.exps / ceilings.exp_grate) * 1e-3;
  };
  const auto read_us = [&](const PlanCost& cost) {
    return cost.bytes / ceilings.bandwidth_gbps * 1e-3;
  };
  for (const PlanCost& cost : segments) {
    floors.floor_us += std::max(read_us(cost), compute_us(cost));
    floors.total.flops += cost.flops;
    floors.total.bytes += cost.bytes;
    floors.total.exps += cost.exps;
  }
  floors.ideal_us = std::max(read_us(floors.total), compute_us(floors.total));
  return floors;
}

}  // namespace

void hold_against(const Ceilings& ceilings, AttentionMeasured& measured) {
  ordered_json& json = measured.json;
  const double peak = ceilings.peak_gflops(measured.kv_type);
  const Floors floors = floors_of(measured.costs, peak, ceilings);
  const double two_phase = json["two_phase_us"];
  json["floor_us"] = floors.floor_us;
  json["ideal_floor_us"] = floors.ideal_us;
  json["floor_fraction"] = floors.floor_us / two_phase;
  json["floor_fraction_p10"] = floors.floor_us / json["two_phase_us_p10"].get<double>();
  json["ideal_fraction"] = floors.ideal_us / two_phase;
  json["flops"] = floors.total.flops;
  json["bytes"] = floors.total.bytes;
  json["exps"] = floors.total.exps;
  json["peak_gflops"] = peak;
  json["bandwidth_gbps"] = ceilings.bandwidth_gbps;
  json["l3_gbps"] = ceilings.l3_gbps;
  json["exp_grate"] = ceilings.exp_grate;
  json["noisy"] = ceilings.noisy;
}

Expected<AttentionMeasured> measure_attention(const AttentionShape& shape, Ceilings& ceilings,
                                              const Effort& effort,
                                              const ops::BackendOptions& options) {
  TRY(const auto bench, AttentionCase::create(shape, options));
  const double error = bench->relative_error();
  const bool agree = bench->ways_agree();
  std::vector<Way> ways{{"two_phase", [&] { bench->two_phase(); }},
                        {"per_sequence", [&] { bench->per_sequence(); }},
                        {"per_sequence_seq_outer", [&] { bench->per_sequence_outer(); }},
                        {"per_sequence_unshared", {}},
                        {"plan", [&] { bench->plan(); }}};
  if (bench->has_unshared()) ways[3].run = [&] { bench->per_sequence_unshared(); };
  const bool equal = bench->plans_equal();
  AttentionMeasured measured{{}, bench->segment_costs(), shape.kv_type};
  time_ways(ways, effort);
  TRY_STATUS(raise_ceilings(ceilings));
  ordered_json& json = measured.json;
  for (const Way& way : ways) way.us.put(json, way.key + "_us");
  hold_against(ceilings, measured);
  json["unique_kv_bytes"] = bench->unique_kv_bytes();
  json["rel_err"] = error;
  json["bit_equal"] = agree;
  json["plans_equal"] = equal;
  json["rounds"] = ways[0].us.count();
  json["layers"] = bench->layers();
  return measured;
}

double shared_page_ratio(const ordered_json& line) {
  return std::min(line["per_sequence_us"].get<double>(),
                  line["per_sequence_seq_outer_us"].get<double>()) /
         line["two_phase_us"].get<double>();
}

}  // namespace coppice::tools
