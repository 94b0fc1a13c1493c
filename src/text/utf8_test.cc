#include "text/utf8.h"

#include <gtest/gtest.h>

#include "text/byte_alphabet.h"

namespace coppice::text {
namespace {

std::string lossy(std::string_view bytes) {
  std::string out;
  EXPECT_EQ(append_lossy(bytes, false, &out), 0u);
  return out;
}

TEST(Utf8, EveryCharacterComesBack) {
  for (int32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text = "x";
    append_utf8(c, &text);
    const Utf8Char got = decode_utf8(std::string_view(text).substr(1));
    ASSERT_EQ(got.code_point, c);
    ASSERT_EQ(got.length, text.size() - 1);
    ASSERT_EQ(decode_utf8_last(text).code_point, c);
    ASSERT_EQ(valid_utf8_prefix(text), text.size());
  }
}

// The examples of the Unicode Standard, section 3.9, tables 3-8 to 3-11.
TEST(Utf8, IllFormedPartsBecomeOneReplacementEach) {
  const std::string r = "\ufffd";
  EXPECT_EQ(lossy("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41"), r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(lossy("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42"), r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(lossy("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41"), r + r + r + r + "A");
}

TEST(Utf8, KeepsOnlyATailThatMayBecomeACharacter) {
  for (const std::string_view tail : {"\xe4", "\xe4\xb8", "\xf0\x9f\x98", "\xc3"}) {
    std::string out;
    EXPECT_EQ(append_lossy(std::string("ab").append(tail), true, &out), tail.size());
    EXPECT_EQ(out, "ab");
  }
  std::string out;
  EXPECT_EQ(append_lossy("a\xe4\x41\xff", true, &out), 0u);
  EXPECT_EQ(out,
            "a\ufffd"
            "A\ufffd");
}

TEST(ByteAlphabet, IsOneToOneAndGpt2s) {
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(char_to_byte(byte_to_char(static_cast<uint8_t>(byte))), static_cast<uint8_t>(byte));
  }
  EXPECT_EQ(byte_to_char(' '), 0x120);
  EXPECT_EQ(byte_to_char('\n'), 0x10a);
  EXPECT_EQ(byte_to_char('~'), '~');
  EXPECT_EQ(byte_to_char(0xad), 0x143);
  EXPECT_FALSE(char_to_byte(' '));
  EXPECT_FALSE(char_to_byte(0x144));
  EXPECT_FALSE(char_to_byte(-1));
  EXPECT_EQ(bytes_of_token("\u0120a\u00e9"), " a\xe9");
  EXPECT_EQ(bytes_of_token("a b"), "a b");  // a space is not in the alphabet: the token as it is
}

}  // namespace
}  // namespace coppice::text
