#include "text/byte_alphabet.h"

#include <array>

#include "text/utf8.h"

namespace coppice::text {
namespace {

constexpr bool prints(int byte) {
  return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr int kFirstStandIn = 0x100;
constexpr int kStandIns = 68;

struct Tables {
  std::array<int16_t, 256> to_char{};
  std::array<int16_t, kFirstStandIn + kStandIns> to_byte{};
};

constexpr Tables make_tables() {
  Tables tables;
  for (int16_t& byte : tables.to_byte) byte = -1;
  int stand_in = kFirstStandIn;
  for (int byte = 0; byte < 256; ++byte) {
    const int character = prints(byte) ? byte : stand_in++;
    tables.to_char[byte] = static_cast<int16_t>(character);
    tables.to_byte[character] = static_cast<int16_t>(byte);
  }
  return tables;
}

constexpr Tables kTables = make_tables();

}  // namespace

int32_t byte_to_char(uint8_t byte) { return kTables.to_char[byte]; }

std::optional<uint8_t> char_to_byte(int32_t code_point) {
  if (code_point < 0 || code_point >= static_cast<int32_t>(kTables.to_byte.size())) return {};
  const int16_t byte = kTables.to_byte[code_point];
  if (byte < 0) return {};
  return static_cast<uint8_t>(byte);
}

void append_byte_chars(std::string_view bytes, std::string* out) {
  for (const char byte : bytes) append_utf8(byte_to_char(static_cast<uint8_t>(byte)), out);
}

std::string bytes_of_token(std::string_view token) {
  std::string bytes;
  for (std::string_view rest = token; !rest.empty();) {
    const Utf8Char c = decode_utf8(rest);
    const std::optional<uint8_t> byte = char_to_byte(c.code_point);
    if (!byte) return std::string(token);
    bytes.push_back(static_cast<char>(*byte));
    rest.remove_prefix(c.length);
  }
  return bytes;
}

}  // namespace coppice::text
