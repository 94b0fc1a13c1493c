#include "tools/train_config.h"

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

Status append_flags(const std::string& file, std::vector<std::string>& out) {
  TRY(const std::string text, read_file(file));
  const auto json = ordered_json::parse(text, nullptr, false);
  if (!json.is_object()) {
    return fail(ErrorCode::kInvalidArgument, "--config: " + file + ": not a JSON object");
  }
  for (const auto& [key, value] : json.items()) {
    const bool flag = value.is_boolean();
    if (!flag && !value.is_string() && !value.is_number()) {
      return fail(ErrorCode::kInvalidArgument,
                  "--config: " + file + ": " + key + ": not a string, number or boolean");
    }
    if (flag && !value.get<bool>()) continue;
    out.push_back("--" + key);
    if (!flag) out.push_back(value.is_string() ? value.get<std::string>() : value.dump());
  }
  return {};
}

}  // namespace

Expected<std::vector<std::string>> expand_config(const std::vector<std::string>& arguments) {
  const std::string option = "--config";
  std::vector<std::string> out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument.compare(0, option.size() + 1, option + "=") == 0) {
      TRY_STATUS(append_flags(argument.substr(option.size() + 1), out));
    } else if (argument == option) {
      if (++i == arguments.size()) {
        return fail(ErrorCode::kInvalidArgument, "--config: needs a file");
      }
      TRY_STATUS(append_flags(arguments[i], out));
    } else {
      out.push_back(argument);
    }
  }
  return out;
}

Expected<std::vector<families::Family>> parse_families(const std::string& list) {
  std::vector<families::Family> out;
  if (list == "all") {
    for (const auto& one : families::all_families()) out.push_back(one.family);
  }
  if (list == "all" || list == "none") return out;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const std::string name = list.substr(begin, end - begin);
    const auto family = families::family_named(name);
    if (!family) {
      std::string names;
      for (const auto& one : families::all_families()) names += " " + std::string(one.name);
      return fail(ErrorCode::kInvalidArgument,
                  "--families: \"" + name + "\" is none of all, none," + names);
    }
    out.push_back(*family);
    begin = end + 1;
  }
  return out;
}

}  // namespace coppice::tools
