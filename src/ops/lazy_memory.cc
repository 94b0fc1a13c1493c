#include "ops/lazy_memory.h"

#include <sys/mman.h>

#include <limits>

namespace coppice::ops {
namespace {

constexpr int64_t kMapFrom = int64_t{1} << 20;
constexpr int64_t kHugePage = int64_t{2} << 20;

}  // namespace

Expected<Buffer> allocate_lazily(int64_t bytes) {
  CHECK(bytes >= 0);
  if (bytes < kMapFrom) return Buffer::allocate(bytes);
  const std::string refusal = "cannot map " + std::to_string(bytes) + " bytes";
  if (bytes > std::numeric_limits<int64_t>::max() - 2 * kHugePage) {
    return fail(ErrorCode::kTooLarge, refusal);
  }
  const auto mapped = static_cast<size_t>(bytes + kHugePage);
  void* map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) return fail(ErrorCode::kTooLarge, refusal);
  const auto address = reinterpret_cast<uintptr_t>(map);
  const uintptr_t aligned = (address + kHugePage - 1) / kHugePage * kHugePage;
  auto* data = static_cast<std::byte*>(map) + (aligned - address);
  // A refused hint costs speed only.
  if (bytes >= kHugePage) (void)madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);
  return Buffer(data, bytes, [map, mapped](std::byte*) { munmap(map, mapped); });
}

Status grow_lazily(Buffer& buffer, int64_t bytes) {
  if (buffer.bytes() >= bytes) return {};
  buffer = {};
  TRY(buffer, allocate_lazily(bytes));
  return {};
}

}  // namespace coppice::ops
