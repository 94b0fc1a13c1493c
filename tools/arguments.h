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
#include <type_traits>
#include <vector>

#include <CLI/CLI.hpp>

namespace coppice::tools {

// "--max_tokens=5" becomes "--max-tokens=5": fields of the JSON interface may be typed as flags.
// Values and everything after a lone "--" stay as they are.
std::vector<std::string> spelled_with_dashes(std::vector<std::string> arguments);

// `bench batched -npp 128` becomes `bench batched --npp 128`: llama-batched-bench's spellings.
std::vector<std::string> spelled_for_batched(std::vector<std::string> arguments);

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

// The whole number that a flag was given; a CLI::ValidationError where it is not within bounds.
template <class Number>
Number read_whole(const std::string& flag, std::string_view text, Bounds<Number> bounds) {
  Number number{};
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc() || end != last || number < bounds.least || number > bounds.most) {
    throw out_of_range(flag, std::string(text), std::to_string(bounds.least),
                       std::to_string(bounds.most));
  }
  return number;
}

// A flag for a whole number within bounds. Value: Number, or an optional of it.
template <class Number, class Value>
CLI::Option* add_whole(CLI::App& app, const std::string& names, Value& value, Bounds<Number> bounds,
                       const std::string& help) {
  const auto read = [&value, bounds, flag = long_name(names)](const std::string& text) {
    value = read_whole(flag, text, bounds);
  };
  return app.add_option_function<std::string>(names, read, help)->type_name("N");
}

// "a,b" to "a" and "b"; empty items stay.
std::vector<std::string> split_list(std::string_view text);
// The other way round, for defaults in help texts.
template <class Item>
std::string join_list(const std::vector<Item>& items) {
  std::string text;
  for (const Item& item : items) {
    if (!text.empty()) text += ',';
    if constexpr (std::is_arithmetic_v<Item>) {
      text += std::to_string(item);
    } else {
      text += item;
    }
  }
  return text;
}

// A flag for whole numbers within bounds, separated by commas; the defaults are what `values`
// holds.
template <class Number>
CLI::Option* add_wholes(CLI::App& app, const std::string& names, std::vector<Number>& values,
                        Bounds<Number> bounds, const std::string& help) {
  const auto read = [&values, bounds, flag = long_name(names)](const std::string& text) {
    values.clear();
    for (const std::string& item : split_list(text)) {
      values.push_back(read_whole(flag, item, bounds));
    }
  };
  return app
      .add_option_function<std::string>(names, read, help + " (default " + join_list(values) + ")")
      ->type_name("LIST");
}

}  // namespace coppice::tools
