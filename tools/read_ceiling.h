// What:    how fast memory is read when nothing else is done: the ceiling of whatever streams.
// Owns:    nothing.
// Threads: any.
// Fails:   never; the CPU must have AVX2, as every instruction set of choose_isa() has.
#pragma once

#include <cstddef>
#include <cstdint>

namespace coppice::tools {

// Ways to read, of which another is the fastest on each machine and level of memory: one stream,
// two, and one fetched 2 KB ahead, as the kernels do. With loads of half the width all are a fifth
// slower.
inline constexpr int kReadWays = 3;

// XOR of the 64-bit words of bytes [0, bytes), a multiple of 256, in way 0 to kReadWays - 1.
uint64_t read_all(int way, const std::byte* from, int64_t bytes);

}  // namespace coppice::tools
