// What:    an engine's profile for people and for scripts: each kind of operation's share of the
//          time, its rates, and its share of what the machine allows.
// Owns:    nothing.
// Threads: one.
// Fails:   never.
#pragma once

#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "ceilings.h"
#include "coppice/options.h"
#include "coppice/profile.h"

namespace coppice::tools {

void add_profile_flag(CLI::App& app, bool& profile, const std::string& where);

// The ceilings of an engine with these options.
Expected<Ceilings> ceilings_for(const EngineOptions& options);

// {"steps", "rows", "ms", "operations": [{"name", "calls", "ms", "share", "gflops", "gbps",
// "ceiling_share"}]}. ceiling_share: the least time that the machine's read bandwidth and peak
// allow over the time taken; from caches more than the bandwidth is possible.
nlohmann::ordered_json profile_json(const Profile& profile, const Ceilings& ceilings);
std::string profile_text(const nlohmann::ordered_json& profile);

}  // namespace coppice::tools
