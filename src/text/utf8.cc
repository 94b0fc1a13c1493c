#include "text/utf8.h"

#include <algorithm>
#include <cstring>

namespace coppice::text {
namespace {

struct Lead {
  uint8_t length;     // of the whole character
  uint8_t low, high;  // bounds of the second byte
  uint8_t payload_mask;
};

// The table of well-formed byte sequences (Unicode table 3-7); length 0: no character begins so.
Lead lead_of(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0, 0x7f};
  if (byte < 0xc2) return {0, 0, 0, 0};
  if (byte < 0xe0) return {2, 0x80, 0xbf, 0x1f};
  if (byte == 0xe0) return {3, 0xa0, 0xbf, 0x0f};
  if (byte == 0xed) return {3, 0x80, 0x9f, 0x0f};
  if (byte < 0xf0) return {3, 0x80, 0xbf, 0x0f};
  if (byte == 0xf0) return {4, 0x90, 0xbf, 0x07};
  if (byte < 0xf4) return {4, 0x80, 0xbf, 0x07};
  if (byte == 0xf4) return {4, 0x80, 0x8f, 0x07};
  return {0, 0, 0, 0};
}

// How many bytes at the front are ASCII, eight at a time.
size_t ascii_prefix(std::string_view text) {
  size_t at = 0;
  while (at + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (word & 0x8080808080808080u) break;
    at += 8;
  }
  while (at < text.size() && static_cast<uint8_t>(text[at]) < 0x80) ++at;
  return at;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  if (text.empty()) return {};
  const Lead lead = lead_of(static_cast<uint8_t>(text[0]));
  if (lead.length == 0) return {-1, 1, false};
  int32_t code_point = static_cast<uint8_t>(text[0]) & lead.payload_mask;
  for (uint8_t i = 1; i < lead.length; ++i) {
    if (i >= text.size()) return {-1, i, true};
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    const uint8_t low = i == 1 ? lead.low : 0x80;
    const uint8_t high = i == 1 ? lead.high : 0xbf;
    if (byte < low || byte > high) return {-1, i, false};
    code_point = code_point << 6 | (byte & 0x3f);
  }
  return {code_point, lead.length, false};
}

Utf8Char decode_utf8_last(std::string_view text) {
  for (size_t length = 1; length <= 4 && length <= text.size(); ++length) {
    const Utf8Char c = decode_utf8(text.substr(text.size() - length));
    if (c.code_point >= 0 && c.length == length) return c;
  }
  return {-1, static_cast<uint8_t>(text.empty() ? 0 : 1), false};
}

void append_utf8(int32_t code_point, std::string* out) {
  const uint32_t c = static_cast<uint32_t>(code_point);
  if (c < 0x80) {
    out->push_back(static_cast<char>(c));
    return;
  }
  if (c < 0x800) {
    out->push_back(static_cast<char>(0xc0 | c >> 6));
  } else {
    if (c < 0x10000) {
      out->push_back(static_cast<char>(0xe0 | c >> 12));
    } else {
      out->push_back(static_cast<char>(0xf0 | c >> 18));
      out->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3f)));
    }
    out->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3f)));
  }
  out->push_back(static_cast<char>(0x80 | (c & 0x3f)));
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t at = 0;
  while (true) {
    at += ascii_prefix(text.substr(at));
    const Utf8Char c = decode_utf8(text.substr(at));
    if (c.code_point < 0) return at;
    at += c.length;
  }
}

size_t append_lossy(std::string_view text, bool keep_tail, std::string* out) {
  while (!text.empty()) {
    const size_t good = valid_utf8_prefix(text);
    out->append(text.substr(0, good));
    text.remove_prefix(good);
    const Utf8Char bad = decode_utf8(text);
    if (bad.length == 0) break;
    if (bad.cut_off && keep_tail) return bad.length;
    append_utf8(0xfffd, out);
    text.remove_prefix(bad.length);
  }
  return 0;
}

}  // namespace coppice::text
