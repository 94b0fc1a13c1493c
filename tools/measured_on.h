// What:    the date, the machine and the command that stand beside a measured number.
// Owns:    nothing.
// Threads: any.
// Fails:   never; a processor without a name is "unknown processor".
#pragma once

#include <string>

namespace coppice::tools {

std::string today();           // "2026-11-22", in UTC
std::string processor_name();  // as the system has it
// This process's, to be typed again; the program without its directory.
std::string command_line();

}  // namespace coppice::tools
