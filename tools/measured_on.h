// What:    the date and the machine that stand beside a measured number.
// Owns:    nothing.
// Threads: any.
// Fails:   never; a processor without a name is "unknown processor".
#pragma once

#include <string>

namespace coppice::tools {

std::string today();           // "2026-11-22", in UTC
std::string processor_name();  // as the system has it

}  // namespace coppice::tools
