#include "model/gguf.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

namespace coppice::model {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int64_t kDefaultAlignment = 32;
constexpr int64_t kMostAlignment = int64_t{1} << 20;
constexpr uint64_t kMostKeyBytes = 65535;  // the format's own limit
constexpr int kMostNesting = 4;
// The fewest bytes that one of each can take.
constexpr int64_t kLeastPair = 8 + 4 + 1;
constexpr int64_t kLeastTensor = 8 + 4 + 4 + 8;

// Bytes of a scalar; of the length in front of a string; of the head of an array.
int64_t least_bytes(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kString:
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kArray:
      return 12;
  }
  return 1;
}

struct TypeRow {
  uint32_t id;
  std::string_view name;
  std::optional<DType> type;
};
constexpr std::array<TypeRow, 35> kTensorTypes{{
    {0, "F32", DType::kF32},
    {1, "F16", DType::kF16},
    {2, "Q4_0", DType::kQ4_0},
    {8, "Q8_0", DType::kQ8_0},
    {12, "Q4_K", DType::kQ4_K},
    {13, "Q5_K", DType::kQ5_K},
    {14, "Q6_K", DType::kQ6_K},
    {30, "BF16", DType::kBF16},
    {3, "Q4_1", {}},
    {6, "Q5_0", {}},
    {7, "Q5_1", {}},
    {9, "Q8_1", {}},
    {10, "Q2_K", {}},
    {11, "Q3_K", {}},
    {15, "Q8_K", {}},
    {16, "IQ2_XXS", {}},
    {17, "IQ2_XS", {}},
    {18, "IQ3_XXS", {}},
    {19, "IQ1_S", {}},
    {20, "IQ4_NL", {}},
    {21, "IQ3_S", {}},
    {22, "IQ2_S", {}},
    {23, "IQ4_XS", {}},
    {24, "I8", {}},
    {25, "I16", {}},
    {26, "I32", {}},
    {27, "I64", {}},
    {28, "F64", {}},
    {29, "IQ1_M", {}},
    {34, "TQ1_0", {}},
    {35, "TQ2_0", {}},
    {39, "MXFP4", {}},
    {40, "NVFP4", {}},
    {41, "Q1_0", {}},
    {UINT32_MAX, "an unknown type", {}},
}};

const TypeRow& tensor_type(uint32_t id) {
  for (const TypeRow& row : kTensorTypes) {
    if (row.id == id) return row;
  }
  return kTensorTypes.back();
}

template <class T>
T load(const uint8_t* bytes) {
  static_assert(std::endian::native == std::endian::little);
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// Walks the file; every step is checked against the end.
class Cursor {
 public:
  Cursor(std::span<const uint8_t> bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  int64_t position() const { return position_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }
  int64_t left() const { return size() - position_; }
  const std::string& where() const { return where_; }

  tl::unexpected<Error> corrupt(const std::string& what) const { return corrupt(what, position_); }
  tl::unexpected<Error> corrupt(const std::string& what, int64_t byte) const {
    return fail(ErrorCode::kCorrupt, where_ + ": " + what + " at byte " + std::to_string(byte));
  }

  Status skip(int64_t count, const std::string& what) {
    if (count > left()) return corrupt(what + " goes beyond the end of the file");
    position_ += count;
    return {};
  }
  template <class T>
  Expected<T> scalar(const std::string& what) {
    const int64_t begin = position_;
    TRY_STATUS(skip(sizeof(T), what));
    return load<T>(bytes_.data() + begin);
  }
  Expected<std::string_view> string(const std::string& what) {
    TRY(const uint64_t length, scalar<uint64_t>(what));
    if (length > static_cast<uint64_t>(left())) {
      return corrupt(what + " says it has " + std::to_string(length) +
                     " bytes, more than the file");
    }
    const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + position_, length);
    position_ += static_cast<int64_t>(length);
    return text;
  }
  // A count of things that take `least` bytes each.
  Expected<uint64_t> count(int64_t least, const std::string& what) {
    TRY(const uint64_t number, scalar<uint64_t>(what));
    if (number > static_cast<uint64_t>(left() / least)) {
      return corrupt(what + " is " + std::to_string(number) + ", more than the file can hold",
                     position_ - 8);
    }
    return number;
  }

 private:
  std::span<const uint8_t> bytes_;
  const std::string& where_;
  int64_t position_ = 0;
};

Expected<GgufType> read_type(Cursor& in, const std::string& what) {
  TRY(const uint32_t id, in.scalar<uint32_t>(what));
  if (id > static_cast<uint32_t>(GgufType::kF64)) {
    return in.corrupt(what + " has the unknown value type " + std::to_string(id),
                      in.position() - 4);
  }
  return static_cast<GgufType>(id);
}

Expected<GgufValue> read_value(Cursor& in, GgufType type, int depth, const std::string& what);

Expected<GgufValue> read_array(Cursor& in, int depth, const std::string& what) {
  if (depth > kMostNesting) {
    return in.corrupt(what + " is nested deeper than " + std::to_string(kMostNesting) + " arrays");
  }
  GgufValue value{.type = GgufType::kArray};
  TRY(value.element, read_type(in, what));
  TRY(value.count, in.count(least_bytes(value.element), what + ": the array's length"));
  value.begin = in.position();
  if (value.element == GgufType::kString || value.element == GgufType::kArray) {
    for (uint64_t i = 0; i < value.count; ++i) {
      TRY_STATUS(read_value(in, value.element, depth + 1, what).map([](const GgufValue&) {}));
    }
  } else {
    TRY_STATUS(in.skip(static_cast<int64_t>(value.count) * least_bytes(value.element), what));
  }
  value.end = in.position();
  return value;
}

Expected<GgufValue> read_value(Cursor& in, GgufType type, int depth, const std::string& what) {
  if (type == GgufType::kArray) return read_array(in, depth, what);
  GgufValue value{.type = type};
  if (type == GgufType::kString) {
    TRY(const std::string_view text, in.string(what));
    value.begin = in.position() - static_cast<int64_t>(text.size());
  } else {
    value.begin = in.position();
    TRY_STATUS(in.skip(least_bytes(type), what));
  }
  value.end = in.position();
  return value;
}

Expected<std::pair<std::string, GgufValue>> read_pair(Cursor& in) {
  const int64_t byte = in.position();
  TRY(const std::string_view key, in.string("a metadata key"));
  if (key.empty() || key.size() > kMostKeyBytes) {
    return in.corrupt("a metadata key has " + std::to_string(key.size()) + " bytes", byte);
  }
  const std::string what = "key " + quote_name(key);
  TRY(const GgufType type, read_type(in, what));
  TRY(const GgufValue value, read_value(in, type, 1, what));
  return std::pair(std::string(key), value);
}

// A tensor as its row of the table says it; begin counts from the data section, which is not known
// before the table ends.
struct Declared {
  std::string name;
  TensorEntry entry;
  int64_t bytes = 0;
};

Expected<Declared> read_tensor(Cursor& in) {
  const int64_t byte = in.position();
  Declared out;
  TRY(out.name, in.string("a tensor's name"));
  const std::string what = "tensor " + quote_name(out.name);
  TRY(const uint32_t rank, in.scalar<uint32_t>(what));
  if (rank > Shape::kMaxRank) {
    return in.corrupt(what + " has " + std::to_string(rank) + " dimensions, at most 4 exist", byte);
  }
  std::array<int64_t, Shape::kMaxRank> extents{};
  for (uint32_t i = 0; i < rank; ++i) {
    TRY(const uint64_t extent, in.scalar<uint64_t>(what));
    if (extent > static_cast<uint64_t>(INT64_MAX)) {
      return in.corrupt(what + " has an extent of " + std::to_string(extent), in.position() - 8);
    }
    extents[rank - 1 - i] = static_cast<int64_t>(extent);
  }
  const std::span<const int64_t> shape(extents.data(), rank);
  TRY(const int64_t elements, checked_elements(shape, in.where() + ": " + what));
  TRY(const uint32_t id, in.scalar<uint32_t>(what));
  const TypeRow& type = tensor_type(id);
  if (!type.type) {
    return fail(ErrorCode::kUnsupported,
                in.where() + ": " + what + " is " + std::string(type.name) + " (" +
                    std::to_string(id) +
                    "); this build reads F32, F16, BF16, Q8_0, Q4_0, Q4_K, Q5_K and Q6_K");
  }
  TRY(const uint64_t offset, in.scalar<uint64_t>(what));
  const int64_t innermost = rank == 0 ? 1 : extents[rank - 1];
  const int64_t block = dtype_block(*type.type);
  if (innermost % block != 0) {
    return in.corrupt(what + " is " + std::string(type.name) + " with rows of " +
                          std::to_string(innermost) + ", not a multiple of " +
                          std::to_string(block) + ",",
                      byte);
  }
  const __int128 bytes = static_cast<__int128>(elements / block) * dtype_block_bytes(*type.type);
  if (offset > static_cast<uint64_t>(in.size()) || bytes > in.size()) {
    return in.corrupt(what + " goes beyond the end of the file, as declared", byte);
  }
  out.entry.type = *type.type;
  out.entry.shape = Shape::of(shape);
  out.entry.begin = static_cast<int64_t>(offset);
  out.bytes = static_cast<int64_t>(bytes);
  return out;
}

Status read_header(Cursor& in) {
  TRY(const uint32_t magic, in.scalar<uint32_t>("the magic number"));
  if (magic != kMagic) return in.corrupt("there is no \"GGUF\"", 0);
  TRY(const uint32_t version, in.scalar<uint32_t>("the version"));
  if (version != 2 && version != 3) {
    const bool swapped = version != 0 && (version & 0xffffu) == 0;
    return fail(ErrorCode::kUnsupported,
                in.where() + ": " +
                    (swapped ? "a big-endian file" : "GGUF version " + std::to_string(version)) +
                    "; this build reads little-endian versions 2 and 3");
  }
  return {};
}

}  // namespace

uint32_t gguf_type_id(DType type) {
  for (const TypeRow& row : kTensorTypes) {
    if (row.type == type) return row.id;
  }
  CHECK(false && "GGUF has no such type");
  return 0;
}

Expected<GgufFile> GgufFile::read(std::span<const uint8_t> file, std::string where) {
  GgufFile out;
  out.bytes_ = file;
  out.where_ = std::move(where);
  Cursor in(file, out.where_);
  TRY_STATUS(read_header(in));
  TRY(const uint64_t tensors, in.count(kLeastTensor, "the number of tensors"));
  TRY(const uint64_t pairs, in.count(kLeastPair, "the number of metadata keys"));
  for (uint64_t i = 0; i < pairs; ++i) {
    const int64_t byte = in.position();
    TRY(auto pair, read_pair(in));
    const std::string name = quote_name(pair.first);
    if (!out.values_.insert(std::move(pair)).second) {
      return in.corrupt("key " + name + " appears again", byte);
    }
  }
  TRY(const int64_t alignment,
      out.integer("general.alignment", 1, kMostAlignment, kDefaultAlignment));
  if (!std::has_single_bit(static_cast<uint64_t>(alignment))) {
    return fail(out.wrong("general.alignment", "a power of two"));
  }
  std::vector<Declared> declared;
  for (uint64_t i = 0; i < tensors; ++i) {
    TRY(Declared tensor, read_tensor(in));
    declared.push_back(std::move(tensor));
  }
  const int64_t data = (in.position() + alignment - 1) / alignment * alignment;
  for (Declared& tensor : declared) {
    const std::string what = "tensor " + quote_name(tensor.name);
    tensor.entry.begin += data;
    tensor.entry.end = tensor.entry.begin + tensor.bytes;
    if (tensor.entry.end > in.size()) {
      return in.corrupt(what + " ends beyond the end of the file,", tensor.entry.end);
    }
    if (!out.tensors_.emplace(std::move(tensor.name), std::move(tensor.entry)).second) {
      return in.corrupt(what + " appears twice in the table before the data", data);
    }
  }
  TRY_STATUS(check_layout(out.tensors_, data, alignment, out.where_).map([](int64_t) {}));
  return out;
}

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

Error GgufFile::wrong(std::string_view key, const std::string& wanted) const {
  const GgufValue* value = find(key);
  const std::string state =
      value == nullptr ? " is missing" : " at byte " + std::to_string(value->begin) + " is wrong";
  return {ErrorCode::kCorrupt, where_ + ": " + std::string(key) + state + "; it must be " + wanted};
}

namespace {

std::optional<int64_t> integer_at(const uint8_t* bytes, GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return load<uint8_t>(bytes);
    case GgufType::kI8:
      return load<int8_t>(bytes);
    case GgufType::kU16:
      return load<uint16_t>(bytes);
    case GgufType::kI16:
      return load<int16_t>(bytes);
    case GgufType::kU32:
      return load<uint32_t>(bytes);
    case GgufType::kI32:
      return load<int32_t>(bytes);
    case GgufType::kI64:
      return load<int64_t>(bytes);
    case GgufType::kU64: {
      const auto wide = load<uint64_t>(bytes);
      if (wide > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
      return static_cast<int64_t>(wide);
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

Expected<int64_t> GgufFile::integer(std::string_view key, int64_t least, int64_t most,
                                    std::optional<int64_t> otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  const std::optional<int64_t> number =
      value ? integer_at(bytes_.data() + value->begin, value->type) : std::nullopt;
  if (!number || *number < least || *number > most) {
    std::string wanted = "an integer from " + std::to_string(least) + " to " + std::to_string(most);
    if (number) wanted += ", not " + std::to_string(*number);
    return fail(wrong(key, wanted));
  }
  return *number;
}

Expected<double> GgufFile::number(std::string_view key, std::optional<double> otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value != nullptr) {
    const uint8_t* bytes = bytes_.data() + value->begin;
    if (value->type == GgufType::kF64) return load<double>(bytes);
    if (value->type == GgufType::kF32) return static_cast<double>(load<float>(bytes));
    const std::optional<int64_t> whole = integer_at(bytes, value->type);
    if (whole) return static_cast<double>(*whole);
  }
  return fail(wrong(key, "a number"));
}

Expected<bool> GgufFile::flag(std::string_view key, bool otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return otherwise;
  if (value->type != GgufType::kBool) return fail(wrong(key, "true or false"));
  return bytes_[static_cast<size_t>(value->begin)] != 0;
}

Expected<std::string_view> GgufFile::text(std::string_view key,
                                          std::optional<std::string_view> otherwise) const {
  const GgufValue* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr || value->type != GgufType::kString) return fail(wrong(key, "a string"));
  return std::string_view(reinterpret_cast<const char*>(bytes_.data()) + value->begin,
                          static_cast<size_t>(value->end - value->begin));
}

Expected<std::vector<std::string_view>> GgufFile::texts(std::string_view key) const {
  std::vector<std::string_view> out;
  const GgufValue* value = find(key);
  if (value == nullptr) return out;
  if (value->type != GgufType::kArray || value->element != GgufType::kString) {
    return fail(wrong(key, "an array of strings"));
  }
  out.reserve(value->count);
  const uint8_t* at = bytes_.data() + value->begin;
  for (uint64_t i = 0; i < value->count; ++i) {
    const auto length = load<uint64_t>(at);
    out.emplace_back(reinterpret_cast<const char*>(at) + 8, length);
    at += 8 + length;
  }
  return out;
}

Expected<std::vector<int64_t>> GgufFile::integers(std::string_view key) const {
  std::vector<int64_t> out;
  const GgufValue* value = find(key);
  if (value == nullptr) return out;
  const uint8_t* at = bytes_.data() + value->begin;
  for (uint64_t i = 0; value->type == GgufType::kArray && i < value->count; ++i) {
    const std::optional<int64_t> number = integer_at(at, value->element);
    if (!number) break;
    out.push_back(*number);
    at += least_bytes(value->element);
  }
  if (value->type != GgufType::kArray || out.size() != value->count) {
    return fail(wrong(key, "an array of integers"));
  }
  return out;
}

}  // namespace coppice::model
