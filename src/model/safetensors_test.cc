#include "model/safetensors.h"

#include <string>

#include "model/test_files.h"

namespace coppice::model {
namespace {

constexpr const char* kTwo = R"({"__metadata__":{"format":"pt"},)"
                             R"("a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                             R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}})";

std::string refusal(const std::string& header, size_t data) {
  const std::string file = safetensors_bytes(header, std::string(data, 'x'));
  const auto table = read_safetensors(as_bytes(file), "f.safetensors");
  const std::string message = message_of(table);
  EXPECT_TRUE(contains(message, "f.safetensors: "));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message;
}

std::string one(const std::string& entry) { return R"({"t":)" + entry + "}"; }

TEST(Safetensors, ListsWhatTheHeaderDeclares) {
  const std::string file = safetensors_bytes(kTwo, std::string(32, 'x'));
  const auto table = read_safetensors(as_bytes(file), "f");
  ASSERT_TRUE(table) << table.error().message;
  ASSERT_EQ(table->size(), 2u);
  const TensorEntry& b = table->at("b");
  EXPECT_EQ(b.type, DType::kBF16);
  EXPECT_EQ(b.shape, Shape({4}));
  EXPECT_EQ(b.end, static_cast<int64_t>(file.size()));
  EXPECT_EQ(b.end - b.begin, 8);
}

TEST(Safetensors, AcceptsPaddedHeadersScalarsAndEmptyTensors) {
  const std::string header = R"({"s":{"dtype":"F16","shape":[],"data_offsets":[0,2]},)"
                             R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[2,2]}}     )";
  const std::string file = safetensors_bytes(header, "xy");
  const auto table = read_safetensors(as_bytes(file), "f");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(table->at("e").shape.elements(), 0);
  EXPECT_EQ(table->at("s").shape.rank(), 0);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const std::string file = safetensors_bytes(kTwo, std::string(32, 'x'));
  for (size_t size = 0; size < file.size(); ++size) {
    const std::string cut = file.substr(0, size);
    const auto table = read_safetensors(as_bytes(cut), "f");
    ASSERT_FALSE(table) << size;
    EXPECT_EQ(table.error().code, ErrorCode::kCorrupt) << size;
  }
  EXPECT_TRUE(contains(refusal(kTwo, 33), "the tensors end at byte"));
}

TEST(Safetensors, LyingLengthsNameTheByte) {
  for (const uint64_t length : {uint64_t{1} << 63, uint64_t{25}, UINT64_MAX}) {
    const std::string file = little(length, 8) + std::string(24, ' ');
    const auto table = read_safetensors(as_bytes(file), "f");
    EXPECT_TRUE(contains(message_of(table), "byte 0 says"));
  }
}

TEST(Safetensors, JsonIsReadStrictly) {
  EXPECT_TRUE(contains(refusal("{\"t\":", 0), "ends too early"));
  EXPECT_TRUE(contains(refusal("[]", 0), "not a JSON object"));
  EXPECT_TRUE(contains(refusal("{\"a\" 1}", 0), "not valid JSON at byte 13"));
  EXPECT_TRUE(contains(refusal(R"({"t":1,"t":2})", 0), "\"t\" appears twice"));
  EXPECT_TRUE(contains(refusal(std::string(100000, '['), 0), "nested deeper"));
  EXPECT_TRUE(contains(refusal("{\"\xff\":1}", 0), "not valid JSON"));
}

TEST(Safetensors, EntriesMustBeWhole) {
  EXPECT_TRUE(contains(refusal(one("7"), 0), "\"t\": is not an object"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":3})"), 0), "dtype"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","data_offsets":[0,0]})"), 0), "shape"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,0]})"), 0),
                       "shape holds -1"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,0]})"), 0),
                       "shape holds 1.5"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})"), 4),
                       "data_offsets"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})"), 4),
                       "data_offsets"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), 4),
                       "the file holds 4"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,4]})"), 4),
                       "does not take the 4 bytes"));
  EXPECT_TRUE(contains(refusal(R"({"__metadata__":{"a":1}})", 0), "__metadata__"));
  EXPECT_TRUE(contains(refusal(R"({"__metadata__":1})", 0), "__metadata__"));
}

TEST(Safetensors, ProductsThatOverflowAreRefused) {
  EXPECT_TRUE(contains(
      refusal(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})"), 0),
      "more elements"));
  EXPECT_TRUE(contains(
      refusal(one(R"({"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]})"), 0),
      "does not take the 0 bytes"));
  EXPECT_TRUE(contains(
      refusal(one(R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]})"), 0),
      "not an integer from 0"));
  EXPECT_TRUE(
      contains(refusal(one(R"({"dtype":"F32","shape":[1,1,1,1,1],"data_offsets":[0,4]})"), 4),
               "5 dimensions"));
}

TEST(Safetensors, OverlapsAndHolesAreRefused) {
  const auto two = [](const char* first, const char* second) {
    return std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)") + first +
           R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}";
  };
  EXPECT_TRUE(contains(refusal(two("[0,8]", "[4,12]"), 12), "\"b\" overlaps"));
  EXPECT_TRUE(contains(refusal(two("[0,8]", "[12,20]"), 20), "\"b\" leaves a hole"));
  EXPECT_TRUE(contains(refusal(two("[4,12]", "[12,20]"), 20), "\"a\" leaves a hole"));
}

TEST(Safetensors, OtherTypesAreListedAndRefusedWhenAskedFor) {
  const std::string file = safetensors_bytes(
      R"({"ids":{"dtype":"I64","shape":[2],"data_offsets":[0,16]}})", std::string(16, 'x'));
  const auto table = read_safetensors(as_bytes(file), "f");
  ASSERT_TRUE(table) << table.error().message;
  const auto found = find_tensor(*table, "ids", {2}, "f");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().code, ErrorCode::kUnsupported);
  EXPECT_TRUE(contains(found.error().message, "\"ids\" is I64; this build reads F32, F16"));
  EXPECT_TRUE(contains(refusal(one(R"({"dtype":"Q7","shape":[1],"data_offsets":[0,4]})"), 4),
                       "\"Q7\"; this build reads"));
}

}  // namespace
}  // namespace coppice::model
