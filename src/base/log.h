// What:    the process log on standard error: text for people, JSON lines for machines.
// Owns:    one logger per process, made by the first call.
// Threads: any.
// Fails:   never.
#pragma once

#include <string_view>

namespace coppice::log {

enum class Level { kDebug, kInfo, kWarn, kError };
enum class Format { kText, kJson };

// Called once by a tool's main before other threads exist.
void configure(Level least, Format format);

void debug(std::string_view message);
void info(std::string_view message);
void warn(std::string_view message);
void error(std::string_view message);

}  // namespace coppice::log
