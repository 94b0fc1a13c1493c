// What:    the structure of a GGUF file (versions 2 and 3): metadata by key, tensors by name.
// Owns:    tables of offsets; the bytes are the caller's and must outlive it.
// Threads: read-only after read.
// Fails:   kCorrupt naming file, key or tensor, and byte; kUnsupported for versions and tensor
// types
//          that are not read here.
//
//   "GGUF" version:u32 tensors:u64 pairs:u64
//   pairs   x { key:string type:u32 value }        string = length:u64 bytes
//   tensors x { name:string rank:u32 extents:u64[rank], innermost first, type:u32 offset:u64 }
//   padding to general.alignment (32), then the data; offsets count from there
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"
#include "model/tensor_entry.h"

namespace coppice::model {

enum class GgufType : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// Where a metadata value lies. Checked: [begin, end) is inside the file and well formed.
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufType element = GgufType::kU8;  // of an array
  uint64_t count = 0;                // of an array
  int64_t begin = 0;                 // the value itself: a string's bytes, an array's first element
  int64_t end = 0;
};

// The format's number of a tensor type. The type must be one that is read here.
uint32_t gguf_type_id(DType type);

class GgufFile {
 public:
  static Expected<GgufFile> read(std::span<const uint8_t> file, std::string where);

  std::span<const uint8_t> bytes() const { return bytes_; }
  const std::string& where() const { return where_; }
  // By the file's names; shapes are outermost first, as everywhere in this project.
  const TensorTable& tensors() const { return tensors_; }
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // Values by key. A missing key yields `otherwise`, or an error where none is given; another type
  // or an integer outside [least, most] is an error.
  Expected<int64_t> integer(std::string_view key, int64_t least, int64_t most,
                            std::optional<int64_t> otherwise = {}) const;
  Expected<double> number(std::string_view key, std::optional<double> otherwise = {}) const;
  Expected<bool> flag(std::string_view key, bool otherwise) const;
  Expected<std::string_view> text(std::string_view key,
                                  std::optional<std::string_view> otherwise = {}) const;
  // Arrays; a missing key is an empty one.
  Expected<std::vector<std::string_view>> texts(std::string_view key) const;
  Expected<std::vector<int64_t>> integers(std::string_view key) const;

 private:
  const GgufValue* find(std::string_view key) const;
  Error wrong(std::string_view key, const std::string& wanted) const;

  std::span<const uint8_t> bytes_;
  std::string where_;
  std::map<std::string, GgufValue, std::less<>> values_;
  TensorTable tensors_;
};

}  // namespace coppice::model
