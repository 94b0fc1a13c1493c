#include "arguments.h"

#include <algorithm>
#include <cctype>
#include <iterator>

namespace coppice::tools {
namespace {

// Letters to insert, drop or change to make one of the other (Levenshtein).
size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

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

std::vector<std::string> spelled_for_batched(std::vector<std::string> arguments) {
  constexpr std::string_view kNames[] = {"-npp", "-ntg", "-npl", "-pps"};
  if (arguments.size() < 2 || arguments[0] != "bench" || arguments[1] != "batched") {
    return arguments;
  }
  for (std::string& argument : arguments) {
    const std::string_view name(argument.data(), std::min(argument.find('='), argument.size()));
    if (std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames)) {
      argument.insert(0, 1, '-');
    }
  }
  return arguments;
}

std::vector<std::string> split_list(std::string_view text) {
  std::vector<std::string> items;
  while (true) {
    const size_t comma = text.find(',');
    items.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return items;
    text.remove_prefix(comma + 1);
  }
}

std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& names) {
  // Two slips at most (letters that changed places are two), and fewer where little is left.
  size_t best = std::min<size_t>(2, word.size() / 4) + 1;
  std::optional<std::string> found;
  for (const std::string& name : names) {
    const size_t distance = edits(word, name);
    if (distance >= best) continue;
    best = distance;
    found = name;
  }
  return found;
}

CLI::Validator not_empty() {
  return CLI::Validator([](std::string& text) { return text.empty() ? "is empty" : ""; }, "");
}

std::string long_name(const std::string& names) {
  const size_t begin = std::min(names.find("--"), names.size());
  return names.substr(begin, names.find(',', begin) - begin);
}

CLI::ValidationError out_of_range(const std::string& flag, const std::string& text,
                                  const std::string& least, const std::string& most) {
  const bool number = !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isdigit(c) != 0 || c == '-' || c == '.';
  });
  return CLI::ValidationError(flag + " is " + (number ? text : '"' + text + '"') + "; it takes " +
                              least + " to " + most);
}

}  // namespace coppice::tools
