#include "text/unicode.h"

#include <algorithm>

#include <utf8proc.h>

namespace coppice::text {
namespace {

using internal::Addition;
using Range = CodeRange;

#include "text/unicode_additions.inc"

constexpr Range kWhiteSpace[] = {
    {0x9, 0xd},       {0x20, 0x20},     {0x85, 0x85},     {0xa0, 0xa0},     {0x1680, 0x1680},
    {0x2000, 0x200a}, {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000},
};

constexpr Range kAlphabeticSymbols[] = {
    {0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};

bool within(std::span<const Range> ranges, int32_t code_point) {
  const auto after = std::upper_bound(ranges.begin(), ranges.end(), code_point,
                                      [](int32_t c, const Range& r) { return c < r.first; });
  return after != ranges.begin() && code_point <= std::prev(after)->last;
}

bool is_word_category(utf8proc_category_t category) {
  switch (category) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return false;
  }
}

bool is_new_word_char(int32_t code_point) {
  for (const Addition& addition : kAdditions) {
    if (code_point < addition.first || code_point > addition.last) continue;
    const std::string_view name = addition.name;
    if (name[0] == 'L' || name[0] == 'M' || name == "Nd" || name == "Nl" || name == "Pc")
      return true;
  }
  return false;
}

}  // namespace

bool is_white_space(int32_t code_point) { return within(kWhiteSpace, code_point); }

std::span<const CodeRange> white_space() { return kWhiteSpace; }

bool is_word_char(int32_t code_point) {
  if (code_point < 0) return false;
  if (code_point == 0x200c || code_point == 0x200d) return true;
  const utf8proc_category_t category = utf8proc_category(code_point);
  if (is_word_category(category)) return true;
  return category == UTF8PROC_CATEGORY_CN ? is_new_word_char(code_point)
                                          : within(kAlphabeticSymbols, code_point);
}

std::span<const CodeRange> alphabetic_symbols() { return kAlphabeticSymbols; }

bool is_not_normalized(int32_t code_point) { return within(kNotNormalized, code_point); }

namespace internal {
std::span<const Addition> additions() { return kAdditions; }
}  // namespace internal

}  // namespace coppice::text
