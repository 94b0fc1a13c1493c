// What:    exit codes of every command, and the one line that goes with a failure.
// Owns:    nothing.
// Threads: one.
// Fails:   never.
#pragma once

#include <cstdio>

#include "coppice/error.h"

namespace coppice::tools {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 2;  // unknown or invalid flags

// Says what went wrong; a message that opens with a flag is about the flag.
inline int report(const Error& error) {
  std::fprintf(stderr, "coppice: %s\n", error.message.c_str());
  const bool flag = error.code == ErrorCode::kInvalidArgument && error.message.starts_with("-");
  return flag ? kExitUsage : kExitFailure;
}

inline int exit_code_of(const Status& done) { return done ? kExitOk : report(done.error()); }

}  // namespace coppice::tools
