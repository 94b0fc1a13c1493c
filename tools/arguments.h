// What:    the command line as people type it, made what the parser expects; flags that say what
//          they take.
// Owns:    nothing; a flag writes to the value it was given.
// Threads: one.
// Fails:   a flag's wrong value is a CLI::ValidationError, as the parser's own.
#pragma once

#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// "--max_tokens=5" becomes "--max-tokens=5": fields of the JSON interface may be typed as flags.
// Values and everything after a lone "--" stay as they are.
std::vector<std::string> spelled_with_dashes(std::vector<std::string> arguments);

// The name that `word` was probably meant to be; nothing where none is near.
std::optional<std::string> nearest(std::string_view word, const std::vector<std::string>& names);

// For flags that name a thing: an empty value is refused and not taken for an absent flag.
CLI::Validator not_empty();

// "-n,--max-tokens" -> "--max-tokens"; names in errors are those.
std::string long_name(const std::string& names);

// "--flag is 7000; it takes 1 to 1024".
CLI::ValidationError out_of_range(const std::string& flag, const std::string& text,
                                  const std::string& least, const std::string& most);

template <class Number>
struct Bounds {
  Number least, most;
};

// A flag for a whole number within bounds. Value: Number, or an optional of it.
template <class Number, class Value>
CLI::Option* add_whole(CLI::App& app, const std::string& names, Value& value, Bounds<Number> bounds,
                       const std::string& help) {
  const auto read = [&value, bounds, flag = long_name(names)](const std::string& text) {
    Number number{};
    const char* last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, number);
    if (error != std::errc() || end != last || number < bounds.least || number > bounds.most) {
      throw out_of_range(flag, text, std::to_string(bounds.least), std::to_string(bounds.most));
    }
    value = number;
  };
  return app.add_option_function<std::string>(names, read, help)->type_name("N");
}

}  // namespace coppice::tools
