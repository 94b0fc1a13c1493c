#include "model/safetensors.h"

#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "model/strict_json.h"

namespace coppice::model {
namespace {

using nlohmann::json;

constexpr int64_t kLengthBytes = 8;
// The format's own limit on its header.
constexpr uint64_t kMostHeaderBytes = 100'000'000;
// {"name": {"shape": [..]}} is three deep; metadata is two.
constexpr int kHeaderDepth = 4;

struct TypeRow {
  std::string_view name;
  int bits;
  std::optional<DType> type;
};
constexpr std::array<TypeRow, 22> kTypes{{
    {"F32", 32, DType::kF32},
    {"F16", 16, DType::kF16},
    {"BF16", 16, DType::kBF16},
    {"BOOL", 8, {}},
    {"U8", 8, {}},
    {"I8", 8, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
    {"I16", 16, {}},
    {"U16", 16, {}},
    {"I32", 32, {}},
    {"U32", 32, {}},
    {"F64", 64, {}},
    {"I64", 64, {}},
    {"U64", 64, {}},
    {"C64", 64, {}},
}};

const TypeRow* find_type(std::string_view name) {
  for (const TypeRow& row : kTypes) {
    if (row.name == name) return &row;
  }
  return nullptr;
}

// A JSON number that is an integer in [0, 2^63).
std::optional<int64_t> natural(const json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned()) {
    const auto wide = value.get<uint64_t>();
    if (wide > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(wide);
  }
  const auto number = value.get<int64_t>();
  if (number < 0) return std::nullopt;
  return number;
}

Expected<std::vector<int64_t>> naturals(const json& object, const char* key,
                                        const std::string& what) {
  const auto found = object.find(key);
  std::vector<int64_t> out;
  if (found == object.end() || !found->is_array()) {
    return fail(ErrorCode::kCorrupt, what + ": " + key + " is not a list of integers");
  }
  for (const json& element : *found) {
    const std::optional<int64_t> number = natural(element);
    if (!number) {
      return fail(ErrorCode::kCorrupt, what + ": " + key + " holds " + json_excerpt(element) +
                                           ", which is not an integer from 0 to 2^63 - 1");
    }
    out.push_back(*number);
  }
  return out;
}

Expected<Shape> read_shape(const json& object, const std::string& what) {
  TRY(const std::vector<int64_t> extents, naturals(object, "shape", what));
  if (extents.size() > Shape::kMaxRank) {
    return fail(ErrorCode::kUnsupported, what + ": has " + std::to_string(extents.size()) +
                                             " dimensions, at most " +
                                             std::to_string(Shape::kMaxRank) + " are read");
  }
  TRY_STATUS(checked_elements(extents, what).map([](int64_t) {}));
  return Shape::of(extents);
}

// data: bytes of the data section, which begins at data_begin of the file.
Expected<TensorEntry> read_entry(const json& object, int64_t data_begin, int64_t data,
                                 const std::string& what) {
  if (!object.is_object()) {
    return fail(ErrorCode::kCorrupt, what + ": is not an object with dtype, shape, data_offsets");
  }
  const auto dtype = object.find("dtype");
  if (dtype == object.end() || !dtype->is_string()) {
    return fail(ErrorCode::kCorrupt, what + ": dtype is not a string");
  }
  const TypeRow* type = find_type(dtype->get_ref<const std::string&>());
  if (type == nullptr) {
    return fail(ErrorCode::kUnsupported, what + ": dtype is " + json_excerpt(*dtype) +
                                             "; this build reads F32, F16 and BF16");
  }
  TensorEntry entry;
  if (type->type) {
    entry.type = *type->type;
  } else {
    entry.unreadable = std::string(type->name);
  }
  TRY(entry.shape, read_shape(object, what));
  TRY(const std::vector<int64_t> offsets, naturals(object, "data_offsets", what));
  if (offsets.size() != 2 || offsets[0] > offsets[1]) {
    return fail(ErrorCode::kCorrupt, what + ": data_offsets is not a pair [begin, end]");
  }
  if (offsets[1] > data) {
    return fail(ErrorCode::kCorrupt, what + ": ends at byte " + std::to_string(offsets[1]) +
                                         " of the data, but the file holds " +
                                         std::to_string(data));
  }
  const __int128 bits = static_cast<__int128>(entry.shape.elements()) * type->bits;
  if (bits != static_cast<__int128>(offsets[1] - offsets[0]) * 8) {
    return fail(ErrorCode::kCorrupt, what + ": " + std::string(type->name) + " " +
                                         entry.shape.text() + " does not take the " +
                                         std::to_string(offsets[1] - offsets[0]) +
                                         " bytes that data_offsets gives it");
  }
  entry.begin = data_begin + offsets[0];
  entry.end = data_begin + offsets[1];
  return entry;
}

Expected<SafetensorsMetadata> read_metadata(const json& metadata, const std::string& where) {
  SafetensorsMetadata read;
  if (!metadata.is_object()) {
    return fail(ErrorCode::kCorrupt, where + ": __metadata__ is not an object");
  }
  for (const auto& [key, value] : metadata.items()) {
    if (!value.is_string()) {
      return fail(ErrorCode::kCorrupt,
                  where + ": __metadata__ " + quote_name(key) + " is not a string");
    }
    read.emplace(key, value.get<std::string>());
  }
  return read;
}

}  // namespace

Expected<TensorTable> read_safetensors(std::span<const uint8_t> file, const std::string& where,
                                       SafetensorsMetadata* metadata) {
  const auto size = static_cast<int64_t>(file.size());
  if (size < kLengthBytes) {
    return fail(ErrorCode::kCorrupt, where + ": " + std::to_string(size) +
                                         " bytes are too few for a safetensors file, whose first "
                                         "8 are the length of its header");
  }
  uint64_t header = 0;
  for (int i = 0; i < kLengthBytes; ++i) header |= uint64_t{file[static_cast<size_t>(i)]} << 8 * i;
  if (header > static_cast<uint64_t>(size - kLengthBytes) || header > kMostHeaderBytes) {
    return fail(ErrorCode::kCorrupt, where + ": byte 0 says that the header has " +
                                         std::to_string(header) + " bytes, but the file has " +
                                         std::to_string(size) + " and a header at most " +
                                         std::to_string(kMostHeaderBytes));
  }
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + kLengthBytes, header);
  TRY(const JsonDocument document, parse_json(text, where, kLengthBytes, kHeaderDepth));
  if (!document.root.is_object()) {
    return fail(ErrorCode::kCorrupt, where + ": the header at byte 8 is not a JSON object");
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(header);
  TensorTable table;
  for (const auto& [name, value] : document.root.items()) {
    if (name == "__metadata__") {
      TRY(SafetensorsMetadata read, read_metadata(value, where));
      if (metadata != nullptr) *metadata = std::move(read);
      continue;
    }
    TRY(TensorEntry entry,
        read_entry(value, data_begin, size - data_begin, where + ": tensor " + quote_name(name)));
    table.emplace(name, std::move(entry));
  }
  TRY(const int64_t end, check_layout(table, data_begin, 1, where));
  if (end != size) {
    return fail(ErrorCode::kCorrupt, where + ": the tensors end at byte " + std::to_string(end) +
                                         ", but the file has " + std::to_string(size) + " bytes");
  }
  return table;
}

}  // namespace coppice::model
