#include "model/gguf_writer.h"

#include <bit>

#include "base/file.h"
#include "model/gguf.h"

namespace coppice::model {
namespace {

constexpr int64_t kAlignment = 32;  // what readers assume where general.alignment is missing

int64_t aligned(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

void put(std::string& out, uint64_t number, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(number >> 8 * i);
}

void put_text(std::string& out, std::string_view text) {
  put(out, text.size(), 8);
  out += text;
}

uint32_t id(GgufType type) { return static_cast<uint32_t>(type); }

}  // namespace

void GgufWriter::key(std::string_view name, uint32_t type) {
  put_text(pairs_, name);
  put(pairs_, type, 4);
  ++pair_count_;
}

void GgufWriter::integer(std::string_view name, uint32_t value) {
  key(name, id(GgufType::kU32));
  put(pairs_, value, 4);
}

void GgufWriter::number(std::string_view name, float value) {
  key(name, id(GgufType::kF32));
  put(pairs_, std::bit_cast<uint32_t>(value), 4);
}

void GgufWriter::flag(std::string_view name, bool value) {
  key(name, id(GgufType::kBool));
  put(pairs_, value ? 1 : 0, 1);
}

void GgufWriter::text(std::string_view name, std::string_view value) {
  key(name, id(GgufType::kString));
  put_text(pairs_, value);
}

void GgufWriter::texts(std::string_view name, const std::vector<std::string>& values) {
  key(name, id(GgufType::kArray));
  put(pairs_, id(GgufType::kString), 4);
  put(pairs_, values.size(), 8);
  for (const std::string& value : values) put_text(pairs_, value);
}

void GgufWriter::integers(std::string_view name, const std::vector<int32_t>& values) {
  key(name, id(GgufType::kArray));
  put(pairs_, id(GgufType::kI32), 4);
  put(pairs_, values.size(), 8);
  for (const int32_t value : values) put(pairs_, static_cast<uint32_t>(value), 4);
}

void GgufWriter::tensor(std::string_view name, const Shape& shape, DType type) {
  put_text(tensors_, name);
  put(tensors_, static_cast<uint64_t>(shape.rank()), 4);
  for (int axis = shape.rank(); axis-- > 0;) put(tensors_, static_cast<uint64_t>(shape[axis]), 8);
  put(tensors_, gguf_type_id(type), 4);
  put(tensors_, static_cast<uint64_t>(data_bytes_), 8);
  sizes_.push_back(dtype_bytes(type, shape.elements()));
  data_bytes_ += aligned(sizes_.back());
}

Status GgufWriter::write(const std::string& path, const Fill& fill) const {
  std::string head = "GGUF";
  put(head, 3, 4);
  put(head, sizes_.size(), 8);
  put(head, pair_count_, 8);
  head += pairs_;
  head += tensors_;
  head.resize(static_cast<size_t>(aligned(static_cast<int64_t>(head.size()))), '\0');

  return write_file(path, [&](const FileSink& sink) -> Status {
    TRY_STATUS(sink(head));
    std::string bytes;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      bytes.assign(static_cast<size_t>(aligned(sizes_[i])), '\0');
      TRY_STATUS(
          fill(i, std::as_writable_bytes(std::span(bytes)).first(static_cast<size_t>(sizes_[i]))));
      TRY_STATUS(sink(bytes));
    }
    return {};
  });
}

}  // namespace coppice::model
