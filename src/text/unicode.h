// What:    the character classes the reference tokenizer uses, code point by code point.
// Owns:    constant tables.
// Threads: any.
// Fails:   never; what is no character is in no class.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace coppice::text {

struct CodeRange {
  int32_t first, last;
};

// White_Space: what `\s` is to the reference.
bool is_white_space(int32_t code_point);
std::span<const CodeRange> white_space();
// `\w` of Rust's regex crate: letters, marks, decimal digits, connectors and joiners.
bool is_word_char(int32_t code_point);
// Circled letters and the like: symbols that count as alphabetic.
std::span<const CodeRange> alphabetic_symbols();
// Newer than the Unicode version of the reference's normalizer, which leaves it as it is.
bool is_not_normalized(int32_t code_point);

// Calls add(CodeRange) for what Unicode 15 and 16 added to a class: a general category ("L",
// "Lu"), "Han", or "Digits" (what Unicode 17 adds to the numbers besides).
template <class Add>
void for_each_addition(std::string_view name, Add add);

namespace internal {
struct Addition {
  const char* name;
  int32_t first, last;
};
std::span<const Addition> additions();
}  // namespace internal

template <class Add>
void for_each_addition(std::string_view name, Add add) {
  const bool major = name.size() == 1;
  for (const internal::Addition& addition : internal::additions()) {
    const std::string_view have = addition.name;
    const bool fits = major ? have.size() == 2 && have[0] == name[0] : have == name;
    if (fits) add(CodeRange{addition.first, addition.last});
  }
}

}  // namespace coppice::text
