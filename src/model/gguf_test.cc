#include "model/gguf.h"

#include <string>

#include "model/gguf_builder.h"

namespace coppice::model {
namespace {

constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ8 = 8;

std::string refusal(const std::string& file) {
  const std::string message = message_of(GgufFile::read(as_bytes(file), "f.gguf"));
  EXPECT_TRUE(contains(message, "f.gguf: "));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message;
}

GgufBuilder every_kind() {
  GgufBuilder b;
  b.raw("u8", GgufType::kU8, little(200, 1)).raw("i8", GgufType::kI8, little(0xff, 1));
  b.raw("u16", GgufType::kU16, little(65535, 2)).raw("i16", GgufType::kI16, little(0xfffe, 2));
  b.u32("u32", 4000000000u).raw("i32", GgufType::kI32, little(0xfffffffd, 4));
  b.raw("u64", GgufType::kU64, little(1ull << 40, 8));
  b.raw("huge", GgufType::kU64, little(UINT64_MAX, 8));
  b.raw("i64", GgufType::kI64, little(UINT64_MAX, 8)).f32("f32", 1.5f);
  b.raw("f64", GgufType::kF64, little(std::bit_cast<uint64_t>(2.5), 8));
  b.flag("flag", true).text("text", "hello").texts("texts", {"a", "", "bc"}).i32s("ids", {3, -4});
  b.raw("nested", GgufType::kArray,
        gguf_type(GgufType::kArray) + little(2, 8) +           //
            gguf_type(GgufType::kU8) + little(3, 8) + "xyz" +  //
            gguf_type(GgufType::kString) + little(1, 8) + gguf_string("s"));
  b.tensor("a", {3, 2}, kF32, std::string(24, 'a')).tensor("b", {32}, kQ8, std::string(34, 'b'));
  return b;
}

TEST(Gguf, ReadsEveryKindOfValue) {
  for (const uint32_t version : {2u, 3u}) {
    const std::string bytes = every_kind().build(version);
    const auto file = GgufFile::read(as_bytes(bytes), "f");
    ASSERT_TRUE(file) << file.error().message;
    const auto integer = [&](const char* key) {
      const auto value = file->integer(key, INT64_MIN, INT64_MAX);
      EXPECT_TRUE(value) << key;
      return value ? *value : 0;
    };
    EXPECT_EQ(integer("u8"), 200);
    EXPECT_EQ(integer("i8"), -1);
    EXPECT_EQ(integer("u16"), 65535);
    EXPECT_EQ(integer("i16"), -2);
    EXPECT_EQ(integer("u32"), 4000000000);
    EXPECT_EQ(integer("i32"), -3);
    EXPECT_EQ(integer("u64"), int64_t{1} << 40);
    EXPECT_EQ(integer("i64"), -1);
    EXPECT_EQ(file->number("f32").value(), 1.5);
    EXPECT_EQ(file->number("f64").value(), 2.5);
    EXPECT_EQ(file->number("u8").value(), 200.0);
    EXPECT_TRUE(file->flag("flag", false).value());
    EXPECT_EQ(file->text("text").value(), "hello");
    EXPECT_EQ(file->texts("texts").value(), (std::vector<std::string_view>{"a", "", "bc"}));
    EXPECT_EQ(file->integers("ids").value(), (std::vector<int64_t>{3, -4}));
    EXPECT_TRUE(file->has("nested"));
    EXPECT_EQ(file->tensors().at("a").shape, (Shape{2, 3}));
    EXPECT_EQ(bytes[static_cast<size_t>(file->tensors().at("a").begin)], 'a');
    EXPECT_EQ(file->tensors().at("b").type, DType::kQ8_0);
    EXPECT_EQ(file->tensors().at("b").end, static_cast<int64_t>(bytes.size()));
  }
}

TEST(Gguf, ValuesOfAnotherKindAreRefusedByKey) {
  const std::string bytes = every_kind().build();
  const auto file = GgufFile::read(as_bytes(bytes), "f.gguf");
  ASSERT_TRUE(file);
  EXPECT_TRUE(contains(message_of(file->integer("u8", 0, 100)), "u8 at byte"));
  EXPECT_TRUE(contains(message_of(file->integer("u8", 0, 100)), "from 0 to 100, not 200"));
  EXPECT_TRUE(contains(message_of(file->integer("huge", 0, INT64_MAX)), "huge"));
  EXPECT_TRUE(contains(message_of(file->integer("f32", 0, 9)), "an integer"));
  EXPECT_TRUE(contains(message_of(file->integer("none", 0, 9)), "none is missing"));
  EXPECT_EQ(file->integer("none", 0, 9, 7).value(), 7);
  EXPECT_TRUE(contains(message_of(file->number("text")), "a number"));
  EXPECT_TRUE(contains(message_of(file->flag("u8", false)), "true or false"));
  EXPECT_TRUE(contains(message_of(file->text("u8")), "a string"));
  EXPECT_TRUE(contains(message_of(file->texts("ids")), "an array of strings"));
  EXPECT_TRUE(contains(message_of(file->integers("texts")), "an array of integers"));
  EXPECT_TRUE(contains(message_of(file->integers("u8")), "an array of integers"));
  EXPECT_TRUE(file->texts("none").value().empty());
  EXPECT_TRUE(file->integers("none").value().empty());
}

TEST(Gguf, EveryTruncationIsRefused) {
  const std::string bytes = every_kind().build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    const auto file = GgufFile::read(as_bytes(cut), "f");
    ASSERT_FALSE(file) << size;
    EXPECT_EQ(file.error().code, ErrorCode::kCorrupt) << size;
    EXPECT_TRUE(contains(file.error().message, "byte"));
  }
}

// Whatever single byte is wrong: an answer, never a crash (the sanitizers watch).
TEST(Gguf, NoSingleByteBreaksTheReader) {
  const std::string bytes = every_kind().build();
  int refused = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    for (const char value : {'\x00', '\x01', '\x7f', '\xff'}) {
      std::string wrong = bytes;
      wrong[i] = value;
      refused += GgufFile::read(as_bytes(wrong), "f") ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(Gguf, HeadersThatAreNotReadHere) {
  EXPECT_TRUE(contains(refusal("GGML" + std::string(60, '\0')), "no \"GGUF\" at byte 0"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().build(1)), "GGUF version 1"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().build(4)), "GGUF version 4"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().build(3u << 24)), "big-endian"));
  const std::string head = "GGUF" + little(3, 4);
  EXPECT_TRUE(contains(refusal(head + little(UINT64_MAX, 8) + std::string(99, '\0')),
                       "the number of tensors is 18446744073709551615"));
  EXPECT_TRUE(contains(refusal(head + little(0, 8) + little(1ull << 60, 8) + std::string(9, 'x')),
                       "the number of metadata keys"));
}

TEST(Gguf, LyingMetadataIsRefused) {
  EXPECT_TRUE(
      contains(refusal(GgufBuilder().u32("k", 1).u32("k", 2).build()), "\"k\" appears again"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().u32("", 1).build()), "key has 0 bytes"));
  EXPECT_TRUE(contains(refusal(GgufBuilder().raw("k", GgufType(13), little(0, 8)).build()),
                       "unknown value type 13"));
  EXPECT_TRUE(
      contains(refusal(GgufBuilder().raw("k", GgufType::kString, little(UINT64_MAX, 8)).build()),
               "key \"k\" says it has 18446744073709551615 bytes"));
  const auto array = [](GgufType element, uint64_t count) {
    return GgufBuilder().raw("k", GgufType::kArray, gguf_type(element) + little(count, 8)).build();
  };
  for (const GgufType element : {GgufType::kU8, GgufType::kF64, GgufType::kString, GgufType::kArray,
                                 GgufType::kBool, GgufType::kI16}) {
    EXPECT_TRUE(contains(refusal(array(element, uint64_t{1} << 61)), "the array's length"));
  }
  std::string deep;
  for (int i = 0; i < 5; ++i) deep += gguf_type(GgufType::kArray) + little(1, 8);
  EXPECT_TRUE(contains(refusal(GgufBuilder().raw("k", GgufType::kArray, deep).build()), "nested"));
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 21}) {
    EXPECT_TRUE(contains(refusal(GgufBuilder().u32("general.alignment", alignment).build()),
                         "general.alignment"));
  }
}

TEST(Gguf, AlignmentIsTheFiles) {
  for (const size_t alignment : {1u, 8u, 64u, 4096u}) {
    GgufBuilder b;
    b.align(alignment).tensor("a", {3}, kF32, std::string(12, 'a'));
    b.tensor("b", {1}, kF32, std::string(4, 'b'));
    const std::string bytes = b.build();
    const auto file = GgufFile::read(as_bytes(bytes), "f");
    ASSERT_TRUE(file) << file.error().message;
    EXPECT_EQ(bytes[static_cast<size_t>(file->tensors().at("b").begin)], 'b');
    EXPECT_EQ(static_cast<size_t>(file->tensors().at("b").begin) % alignment, 0u);
  }
}

TEST(Gguf, LyingTensorsAreRefused) {
  const auto declared = [](const std::vector<uint64_t>& extents, uint32_t type, uint64_t offset) {
    GgufBuilder b;
    b.declare("t", extents, type, offset);
    return refusal(b.build() + std::string(64, 'x'));
  };
  EXPECT_TRUE(contains(declared({1, 1, 1, 1, 1}, kF32, 0), "\"t\" has 5 dimensions"));
  EXPECT_TRUE(contains(declared({UINT64_MAX}, kF32, 0), "an extent of 18446744073709551615"));
  EXPECT_TRUE(contains(declared({1ull << 32, 1ull << 32}, kF32, 0), "more elements"));
  EXPECT_TRUE(contains(declared({1ull << 61}, kF32, 0), "beyond the end"));
  EXPECT_TRUE(contains(declared({17}, kF32, 0), "beyond the end"));
  EXPECT_TRUE(contains(declared({1}, kF32, UINT64_MAX), "beyond the end"));
  EXPECT_TRUE(contains(declared({1}, kF32, 32), "leaves a hole"));
  EXPECT_TRUE(contains(declared({48}, kQ8, 0), "not a multiple of 32"));
  EXPECT_TRUE(contains(declared({256}, 10, 0), "\"t\" is Q2_K (10); this build reads F32, F16"));
  EXPECT_TRUE(contains(declared({256}, 99, 0), "an unknown type (99)"));
  GgufBuilder twice;
  twice.tensor("t", {1}, kF32, "abcd").tensor("t", {1}, kF32, "abcd");
  EXPECT_TRUE(contains(refusal(twice.build()), "\"t\" appears twice"));
  GgufBuilder overlap;
  overlap.tensor("a", {16}, kF32, std::string(64, 'a')).declare("b", {1}, kF32, 32);
  EXPECT_TRUE(contains(refusal(overlap.build()), "\"b\" overlaps"));
}

}  // namespace
}  // namespace coppice::model
