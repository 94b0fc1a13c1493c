// What:    the finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014) and the step between its
//          inputs: counter-based random bits, the same on every machine.
// Owns:    nothing.
// Threads: any.
// Fails:   never.
#pragma once

#include <cstdint>

namespace coppice {

inline constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15u;

// A bijection of 64-bit numbers whose every output bit depends on every input bit.
constexpr uint64_t splitmix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace coppice
