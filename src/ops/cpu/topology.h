// What:    which cores this process may use, in the order in which threads should take them, and
//          which of them share a last-level cache.
// Owns:    plain values.
// Threads: any.
// Fails:   never; what the system does not tell counts as one group of separate cores.
#pragma once

#include <string>
#include <vector>

namespace coppice::ops::cpu {

struct Cpu {
  int number;
  int group;  // cpus of one last-level cache have one; from 0 up, in order of appearance
};

struct Topology {
  // One cpu of every core first, neighbours in a cache side by side; then the cores' other threads.
  std::vector<Cpu> cpus;
  int cores = 1;  // at least 1
};

// The cpus of `allowed`; `system` is the folder with cpuN/topology and cpuN/cache.
Topology read_topology(const std::vector<int>& allowed,
                       const std::string& system = "/sys/devices/system/cpu");
// Those that this process may run on.
Topology this_machine();
// Its cores: what a process uses unless it is told otherwise.
int physical_cores();

}  // namespace coppice::ops::cpu
