#include "arguments.h"

#include <algorithm>

namespace coppice::tools {

std::vector<std::string> spelled_with_dashes(std::vector<std::string> arguments) {
  const auto is_name = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  for (std::string& argument : arguments) {
    if (argument == "--") break;
    if (argument.size() < 3 || argument.compare(0, 2, "--") != 0) continue;
    const auto end = std::find(argument.begin(), argument.end(), '=');
    // A value may begin with dashes too, but hardly with a flag's letters alone.
    if (std::all_of(argument.begin(), end, is_name)) std::replace(argument.begin(), end, '_', '-');
  }
  return arguments;
}

}  // namespace coppice::tools
