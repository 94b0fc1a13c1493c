// What:    the translation of a pattern from Oniguruma's syntax (Ruby flavour) into PCRE2's.
// Owns:    nothing.
// Threads: any.
// Fails:   kUnsupported naming the construct whose meaning would differ.
#pragma once

#include <string>
#include <string_view>

#include "coppice/error.h"

namespace coppice::text {

// What is translated and not passed on:
// - `\s \w \d \h` and `\p{..}`: Oniguruma's sets, with the characters of Unicode 15 and 16; inside
//   a bracketed set a negated one (`\D`, `\P{..}`) takes those characters as unassigned;
// - `^ $`: always line borders; `(?m)`: dot matches newline; a nested set `[a[bc]]`: the union;
// - `x{n,m}+`: a repeated interval, not a possessive one; `x{,n}`: from none to n.
Expected<std::string> translate_pattern(std::string_view pattern, const std::string& where);

}  // namespace coppice::text
