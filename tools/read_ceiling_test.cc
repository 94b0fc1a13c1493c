#include "read_ceiling.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace coppice::tools {
namespace {

// A ceiling that left bytes out would be one that nothing reaches.
TEST(ReadCeiling, EveryWayReadsEveryByteOnce) {
  for (const size_t bytes : {256u, 512u, 4096u + 256u}) {
    std::vector<std::byte> memory(bytes, std::byte{0});
    for (int way = 0; way < kReadWays; ++way) {
      for (size_t at = 0; at < bytes; ++at) {
        memory[at] = std::byte{1};
        ASSERT_EQ(read_all(way, memory.data(), static_cast<int64_t>(bytes)),
                  uint64_t{1} << at % 8 * 8)
            << "way " << way << ", byte " << at << " of " << bytes;
        memory[at] = std::byte{0};
      }
    }
  }
}

}  // namespace
}  // namespace coppice::tools
