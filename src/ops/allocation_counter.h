// What:    (tests) counts every allocation of the test binary that includes it, in one file only:
//          operator new and aligned_alloc, which buffers come from below the size that is mapped.
// Owns:    the count and the binary's operator new.
// Threads: any.
// Fails:   never.
//
// What oneDNN allocates for itself while it runs a primitive is not counted: nobody here can change
// it.
#pragma once

#include <dlfcn.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string_view>

namespace coppice::ops {

inline std::atomic<int64_t> counted_allocations = 0;
inline std::atomic<bool> counting = false;

inline void count_allocation(const void* caller) {
  if (!counting) return;
  Dl_info place{};
  const bool found = dladdr(caller, &place) != 0 && place.dli_fname != nullptr;
  if (found && std::string_view(place.dli_fname).find("libdnnl") != std::string_view::npos) return;
  ++counted_allocations;
}

// The allocations of one call of fn.
template <class Fn>
int64_t allocations_of(const Fn& fn) {
  counted_allocations = 0;
  counting = true;
  fn();
  counting = false;
  return counted_allocations;
}

}  // namespace coppice::ops

// Not inlined: the compiler would see malloc meet delete and warn.
[[gnu::noinline]] void* operator new(size_t bytes) {
  coppice::ops::count_allocation(__builtin_return_address(0));
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  coppice::ops::count_allocation(__builtin_return_address(0));
  return std::malloc(bytes == 0 ? 1 : bytes);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

extern "C" [[gnu::noinline]] void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  coppice::ops::count_allocation(__builtin_return_address(0));
  void* memory = nullptr;
  return posix_memalign(&memory, alignment, bytes) == 0 ? memory : nullptr;
}
