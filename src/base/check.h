// What:    CHECK: programmer errors stop the process with the expression and the place.
// Owns:    nothing.
// Threads: any.
// Fails:   aborts. Anything that can fail for a reason outside our code returns Expected instead.
#pragma once

namespace coppice {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}

#define CHECK(condition)                        \
  (__builtin_expect(!!(condition), 1) ? (void)0 \
                                      : ::coppice::check_failed(#condition, __FILE__, __LINE__))
#ifdef NDEBUG
#define DCHECK(condition) ((void)0)
#else
#define DCHECK(condition) CHECK(condition)
#endif
