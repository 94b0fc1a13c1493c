// What:    UTF-8 decoding that never fails: what is ill-formed is reported with its length.
// Owns:    nothing.
// Threads: any.
// Fails:   never.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coppice::text {

// One step of decoding. Ill-formed input yields the longest prefix that could have begun a
// character (Unicode 3.9, "maximal subpart"), which is what becomes one U+FFFD.
struct Utf8Char {
  int32_t code_point = -1;  // -1: ill-formed
  uint8_t length = 0;       // bytes taken, 1 to 4; 0 only at the end of the text
  bool cut_off = false;     // ill-formed only because the text ends here
};

Utf8Char decode_utf8(std::string_view text);
// The character that ends where `text` ends; code_point -1 when those bytes are ill-formed.
Utf8Char decode_utf8_last(std::string_view text);
void append_utf8(int32_t code_point, std::string* out);
// Length of the longest well-formed prefix.
size_t valid_utf8_prefix(std::string_view text);
// Appends text with U+FFFD for every ill-formed part. When the text ends inside a character and
// keep_tail is set, those bytes (at most 3) are left out; returns how many were left out.
size_t append_lossy(std::string_view text, bool keep_tail, std::string* out);

}  // namespace coppice::text
