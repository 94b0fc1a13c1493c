#include "model/tensor_entry.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace coppice::model {

std::string quote_name(std::string_view name) {
  constexpr size_t kLongest = 80;
  std::string out = "\"";
  for (const char c : name.substr(0, kLongest)) {
    out += c < 0x20 || c > 0x7e ? '?' : c;
  }
  return out + (name.size() > kLongest ? "...\"" : "\"");
}

Expected<int64_t> checked_elements(std::span<const int64_t> extents, const std::string& what) {
  constexpr int64_t kMost = int64_t{1} << 62;
  int64_t product = 1;
  bool empty = false;
  bool overflow = false;
  for (const int64_t extent : extents) {
    empty |= extent == 0;
    overflow |= __builtin_mul_overflow(product, std::max<int64_t>(extent, 1), &product);
    if (overflow || product > kMost) {
      return fail(ErrorCode::kCorrupt, what + ": the shape has more elements than any file holds");
    }
  }
  return empty ? 0 : product;
}

Expected<int64_t> check_layout(const TensorTable& table, int64_t data_begin, int64_t alignment,
                               const std::string& where) {
  std::vector<std::pair<const TensorEntry*, const std::string*>> order;
  order.reserve(table.size());
  for (const auto& [name, entry] : table) order.emplace_back(&entry, &name);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  int64_t end = data_begin;
  for (const auto& [entry, name] : order) {
    const int64_t next = data_begin + (end - data_begin + alignment - 1) / alignment * alignment;
    if (entry->begin != next) {
      const char* how = entry->begin < next ? " overlaps the tensor before it: begins at byte "
                                            : " leaves a hole before it: begins at byte ";
      return fail(ErrorCode::kCorrupt, where + ": tensor " + quote_name(*name) + how +
                                           std::to_string(entry->begin) + ", expected " +
                                           std::to_string(next));
    }
    end = entry->end;
  }
  return end;
}

Expected<const TensorEntry*> find_tensor(const TensorTable& table, std::string_view name,
                                         const Shape& shape, const std::string& where) {
  const auto found = table.find(name);
  if (found == table.end()) {
    return fail(ErrorCode::kNotFound, where + ": has no tensor " + quote_name(name));
  }
  const TensorEntry& entry = found->second;
  if (!entry.unreadable.empty()) {
    return fail(ErrorCode::kUnsupported, where + ": tensor " + quote_name(name) + " is " +
                                             entry.unreadable +
                                             "; this build reads F32, F16 and BF16");
  }
  if (entry.shape != shape) {
    return fail(ErrorCode::kCorrupt, where + ": tensor " + quote_name(name) + " has the shape " +
                                         entry.shape.text() + ", but the config asks for " +
                                         shape.text());
  }
  return &entry;
}

int64_t dtype_alignment(DType type) {
  if (dtype_block(type) > 1) return static_cast<int64_t>(alignof(f16));
  return dtype_block_bytes(type);
}

TensorForm tensor_form(std::span<const uint8_t> file, const TensorEntry& entry) {
  const auto address = reinterpret_cast<uintptr_t>(file.data() + entry.begin);
  const bool aligned = address % static_cast<uintptr_t>(dtype_alignment(entry.type)) == 0;
  return {entry.type, aligned ? 0 : entry.end - entry.begin};
}

Expected<TensorData> tensor_data(std::span<const uint8_t> file, const TensorEntry& entry) {
  const uint8_t* bytes = file.data() + entry.begin;
  const TensorForm form = tensor_form(file, entry);
  if (form.copy_bytes == 0) {
    return TensorData{{static_cast<const void*>(bytes), form.type, entry.shape}, {}};
  }
  TRY(Buffer copy, Buffer::allocate(form.copy_bytes));
  std::memcpy(copy.data(), bytes, static_cast<size_t>(form.copy_bytes));
  const TensorView view = copy.view(form.type, entry.shape);
  return TensorData{view, std::move(copy)};
}

}  // namespace coppice::model
