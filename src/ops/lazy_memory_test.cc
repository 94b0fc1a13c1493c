// What the kernel says of memory that is to be on huge pages: /proc/self/smaps.
#include "ops/lazy_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "ops/backends.h"

namespace coppice::ops {
namespace {

struct Mapping {
  uintptr_t begin = 0, end = 0;
  int64_t huge_bytes = 0;  // backed by huge pages now
  bool offered = false;    // madvise(MADV_HUGEPAGE) holds for it
};

// The mapping that holds an address; none where the kernel does not tell.
std::optional<Mapping> mapping_of(const void* at) {
  const auto address = reinterpret_cast<uintptr_t>(at);
  std::ifstream smaps("/proc/self/smaps");
  std::optional<Mapping> found;
  for (std::string line; std::getline(smaps, line);) {
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::istringstream range(line);
    if (range >> std::hex >> begin >> dash >> end && dash == '-') {
      if (found) return found;
      if (begin <= address && address < end) found = Mapping{begin, end};
    }
    if (!found) continue;
    std::istringstream field(line);
    std::string name, value;
    field >> name;
    if (name == "AnonHugePages:" && field >> found->huge_bytes) found->huge_bytes *= 1024;
    while (name == "VmFlags:" && field >> value) found->offered |= value == "hg";
  }
  return found;
}

constexpr const char* kUnseen = "no /proc/self/smaps here, so nothing tells how memory is backed";

// A page pool's memory is what a backend allocates.
TEST(LazyMemory, APagePoolIsOfferedHugePagesFromItsFirstByteToItsLast) {
  constexpr int64_t kBytes = int64_t{64} << 20;
  for (const char* name : {"ref", "cpu"}) {
    auto backend = *make_backend(name, {.threads = 1});
    const Buffer pool = *backend->allocate(kBytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(pool.data()) % (2 << 20), 0u);
    const auto mapping = mapping_of(pool.data());
    if (!mapping) GTEST_SKIP() << kUnseen;
    EXPECT_TRUE(mapping->offered) << name;
    EXPECT_LE(mapping->begin, reinterpret_cast<uintptr_t>(pool.data()));
    EXPECT_GE(mapping->end, reinterpret_cast<uintptr_t>(pool.data() + kBytes));
    std::memset(pool.data(), 1, kBytes);
    std::printf("%s: %lld of %lld bytes of a pool on huge pages\n", name,
                static_cast<long long>(mapping_of(pool.data())->huge_bytes),
                static_cast<long long>(kBytes));
  }
}

TEST(LazyMemory, SmallMemoryIsNotOffered) {
  const Buffer small = *allocate_lazily(int64_t{1} << 20);
  const auto mapping = mapping_of(small.data());
  if (!mapping) GTEST_SKIP() << kUnseen;
  EXPECT_FALSE(mapping->offered);
}

}  // namespace
}  // namespace coppice::ops
