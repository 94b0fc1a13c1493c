#include "ops/cpu/topology.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <tuple>

namespace coppice::ops::cpu {
namespace {

// The list of cpus in a file is as good a name for their core or cache as any.
std::string read_line(const std::string& path, const std::string& otherwise) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? line : otherwise;
}

// The cache of the highest level that the system lists; where it lists none, the package.
std::string last_level(const std::string& cpu) {
  std::string found;
  int highest = 0;
  for (int index = 0;; ++index) {
    const std::string cache = cpu + "/cache/index" + std::to_string(index);
    int level = 0;
    if (!(std::ifstream(cache + "/level") >> level)) break;
    if (level < highest) continue;
    highest = level;
    found = read_line(cache + "/shared_cpu_list", "");
  }
  return found.empty() ? read_line(cpu + "/topology/physical_package_id", "0") : found;
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

}  // namespace

Topology read_topology(const std::vector<int>& allowed, const std::string& system) {
  std::map<std::string, int> groups, threads_of;
  std::vector<std::tuple<int, int, int>> order;  // thread of its core, group, number
  for (const int number : allowed) {
    const std::string cpu = system + "/cpu" + std::to_string(number);
    const std::string core = read_line(cpu + "/topology/thread_siblings_list", cpu);
    const int group =
        groups.try_emplace(last_level(cpu), static_cast<int>(groups.size())).first->second;
    order.emplace_back(threads_of[core]++, group, number);
  }
  std::sort(order.begin(), order.end());
  Topology out;
  for (const auto& [thread, group, number] : order) out.cpus.push_back({number, group});
  out.cores = std::max(1, static_cast<int>(threads_of.size()));
  return out;
}

Topology this_machine() { return read_topology(allowed_cpus()); }

int physical_cores() { return this_machine().cores; }

}  // namespace coppice::ops::cpu
