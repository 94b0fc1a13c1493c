// What:    REQUIRE: what must hold for every input; where it does not, the fuzzer has a finding.
// Owns:    nothing.
// Threads: any.
// Fails:   stops the process.
#pragma once

#include <cstdlib>

#define REQUIRE(condition) ((condition) ? (void)0 : std::abort())
