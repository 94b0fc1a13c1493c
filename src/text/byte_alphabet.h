// What:    GPT-2's byte alphabet: every byte has a visible character that stands for it.
// Owns:    nothing.
// Threads: any.
// Fails:   never.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace coppice::text {

// Bytes that print stand for themselves; the other 68 are U+0100, U+0101, ... in byte order.
int32_t byte_to_char(uint8_t byte);
std::optional<uint8_t> char_to_byte(int32_t code_point);

// Appends the characters that stand for the bytes.
void append_byte_chars(std::string_view bytes, std::string* out);
// The bytes a token's characters stand for. A token with any other character (an added token, say)
// stands for its own UTF-8.
std::string bytes_of_token(std::string_view token);

}  // namespace coppice::text
