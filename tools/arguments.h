// What:    the command line as people type it, made what the parser expects.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never.
#pragma once

#include <string>
#include <vector>

namespace coppice::tools {

// "--max_tokens=5" becomes "--max-tokens=5": fields of the JSON interface may be typed as flags.
// Values and everything after a lone "--" stay as they are.
std::vector<std::string> spelled_with_dashes(std::vector<std::string> arguments);

}  // namespace coppice::tools
