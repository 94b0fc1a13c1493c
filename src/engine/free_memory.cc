#include "engine/free_memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>

namespace coppice::engine {
namespace {

constexpr int64_t kUnknown = int64_t{1} << 30;

// The number alone in a file; empty when there is none ("max", no such file).
std::optional<int64_t> number_in(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

// The number after `key` at the beginning of a line.
std::optional<int64_t> number_after(const std::string& path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    int64_t value = 0;
    if (words >> word >> value && word == key) return value;
  }
  return std::nullopt;
}

// "0::/a/b" -> "/a/b"; at the top, or where there is no such line, empty.
std::string own_path(const std::string& file_name) {
  constexpr std::string_view kVersion2 = "0::";
  std::ifstream file(file_name);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(kVersion2)) continue;
    line.erase(0, kVersion2.size());
    return line == "/" ? "" : line;
  }
  return {};
}

int64_t left_in_group(const std::string& folder) {
  const auto limit = number_in(folder + "/memory.max");
  const auto used = number_in(folder + "/memory.current");
  if (!limit || !used) return std::numeric_limits<int64_t>::max();
  const int64_t droppable = number_after(folder + "/memory.stat", "inactive_file").value_or(0);
  return std::max<int64_t>(0, *limit - std::max<int64_t>(0, *used - droppable));
}

}  // namespace

int64_t free_memory(const MemoryFiles& files) {
  const auto kilobytes = number_after(files.system, "MemAvailable:");
  int64_t left = kilobytes ? *kilobytes * 1024 : kUnknown;
  for (std::string group = own_path(files.own_group);; group.erase(group.rfind('/'))) {
    left = std::min(left, left_in_group(files.groups + group));
    if (group.find('/') == std::string::npos) return left;
  }
}

}  // namespace coppice::engine
