#include "profile_report.h"

#include <algorithm>
#include <cstdio>

#include "ops/cpu/thread_pool.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

double peak_of(const ProfileEntry& entry, const Ceilings& ceilings) {
  if (entry.ceiling == "int8") return ceilings.int8_gops;
  return entry.ceiling == "f32" ? ceilings.f32_gflops : ceilings.bf16_gflops;
}

double least_seconds(const ProfileEntry& entry, const Ceilings& ceilings) {
  double compute_ns = entry.exps / ceilings.exp_grate;
  if (!entry.ceiling.empty()) compute_ns += entry.flops / peak_of(entry, ceilings);
  return std::max(entry.bytes / ceilings.bandwidth_gbps, compute_ns) * 1e-9;
}

// "%10.1f", or as many blanks and a dash where there is no number.
std::string column(const ordered_json& value, int width, int digits) {
  char text[64];
  if (value.is_null()) {
    std::snprintf(text, sizeof(text), "%*s", width, "-");
  } else {
    std::snprintf(text, sizeof(text), "%*.*f", width, digits, value.get<double>());
  }
  return text;
}

}  // namespace

void add_profile_flag(CLI::App& app, bool& profile, const std::string& where) {
  app.add_flag("--profile", profile,
               "where the steps' time went: milliseconds, GFLOP/s, GB/s and share of this "
               "machine's ceilings per kind of operation, " +
                   where);
}

Expected<Ceilings> ceilings_for(const EngineOptions& options) {
  TRY(const ops::cpu::Isa isa, ops::cpu::choose_isa(options.isa));
  return measure_ceilings(options.threads == 0 ? ops::cpu::physical_cores() : options.threads, isa);
}

ordered_json profile_json(const Profile& profile, const Ceilings& ceilings) {
  ordered_json operations = ordered_json::array();
  for (const ProfileEntry& entry : profile.entries) {
    const double ns = entry.seconds * 1e9;
    const auto per_ns = [&](double amount) {
      return amount > 0 && ns > 0 ? ordered_json(amount / ns) : ordered_json();
    };
    ordered_json line{{"name", entry.name},
                      {"calls", entry.calls},
                      {"ms", entry.seconds * 1e3},
                      {"share", profile.seconds > 0 ? entry.seconds / profile.seconds : 0.0}};
    line["flops"] = entry.flops;
    line["bytes"] = entry.bytes;
    line["gflops"] = per_ns(entry.flops);
    line["gbps"] = per_ns(entry.bytes);
    line["ceiling_share"] = per_ns(least_seconds(entry, ceilings) * 1e9);
    operations.push_back(std::move(line));
  }
  return {{"steps", profile.steps},
          {"rows", profile.rows},
          {"ms", profile.seconds * 1e3},
          {"operations", std::move(operations)}};
}

std::string profile_text(const ordered_json& profile) {
  char line[256];
  std::snprintf(line, sizeof(line), "%lld steps of %lld rows, %.1f ms\n",
                profile["steps"].get<long long>(), profile["rows"].get<long long>(),
                profile["ms"].get<double>());
  std::string text = line;
  std::snprintf(line, sizeof(line), "  %-44s %8s %10s %6s %9s %8s %8s\n", "operation", "calls",
                "ms", "share", "GFLOP/s", "GB/s", "ceiling");
  text += line;
  for (const ordered_json& entry : profile["operations"]) {
    std::snprintf(line, sizeof(line), "  %-44s %8lld %10.2f %4.0f %% %s %s %s\n",
                  entry["name"].get<std::string>().c_str(), entry["calls"].get<long long>(),
                  entry["ms"].get<double>(), 100 * entry["share"].get<double>(),
                  column(entry["gflops"], 9, 1).c_str(), column(entry["gbps"], 8, 1).c_str(),
                  column(entry["ceiling_share"], 8, 2).c_str());
    text += line;
  }
  return text;
}

}  // namespace coppice::tools
