// What:    how much memory this process could still take, as the system and its control groups say.
// Owns:    nothing.
// Threads: any.
// Fails:   never; what cannot be read bounds nothing.
#pragma once

#include <cstdint>
#include <string>

namespace coppice::engine {

struct MemoryFiles {
  std::string system = "/proc/meminfo";
  std::string own_group = "/proc/self/cgroup";
  std::string groups = "/sys/fs/cgroup";  // where the control groups (version 2) are mounted
};

// The least of what the system has available and what the process's control group and those above
// it leave. Cached file pages that the kernel would drop count as free in both.
int64_t free_memory(const MemoryFiles& files = {});

}  // namespace coppice::engine
