// What:    where each tensor of a file lies, checked against the file, and views of those bytes.
// Owns:    plain values; views point into the caller's map of the file.
// Threads: pure functions.
// Fails:   kCorrupt naming file, tensor and byte; kUnsupported for a type that is not read here.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "coppice/error.h"
#include "model/checkpoint.h"
#include "tensor/tensor.h"

namespace coppice::model {

struct TensorEntry {
  DType type = DType::kF32;
  std::string unreadable;  // not empty: the format's name of a type this build does not read
  Shape shape;
  int64_t begin = 0;  // bytes of the file
  int64_t end = 0;
};
using TensorTable = std::map<std::string, TensorEntry, std::less<>>;

// Text from outside, fit for a one-line message: printable ASCII, at most 80 bytes, in quotes.
std::string quote_name(std::string_view name);

// The number of elements of `extents`, or an error naming `what` when it exceeds 2^62.
Expected<int64_t> checked_elements(std::span<const int64_t> extents, const std::string& what);

// Tensors must follow one another from `data_begin` in some order, each beginning at the next
// multiple of `alignment` (counted from data_begin), without overlaps and holes. Returns where the
// last one ends. Every entry lies within the file already.
Expected<int64_t> check_layout(const TensorTable& table, int64_t data_begin, int64_t alignment,
                               const std::string& where);

// The entry called `name` with the shape that is asked for and a type that is read here.
Expected<const TensorEntry*> find_tensor(const TensorTable& table, std::string_view name,
                                         const Shape& shape, const std::string& where);

// Bytes of an element that its address must be a multiple of.
int64_t dtype_alignment(DType type);

// file[entry.begin, entry.end), copied if it is misaligned there. kTooLarge: no memory for that.
// tensor_form is what tensor_data will return.
TensorForm tensor_form(std::span<const uint8_t> file, const TensorEntry& entry);
Expected<TensorData> tensor_data(std::span<const uint8_t> file, const TensorEntry& entry);

}  // namespace coppice::model
