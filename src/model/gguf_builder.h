// What:    GGUF bytes by hand, for the tests: right ones, and wrong ones on purpose.
// Owns:    the bytes written so far.
// Threads: one.
// Fails:   never.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf.h"
#include "model/test_files.h"

namespace coppice::model {

inline std::string gguf_string(std::string_view text) {
  return little(text.size(), 8) + std::string(text);
}
inline std::string gguf_type(GgufType type) { return little(static_cast<uint32_t>(type), 4); }

class GgufBuilder {
 public:
  GgufBuilder& raw(std::string_view key, GgufType type, const std::string& value) {
    pairs_ += gguf_string(key) + gguf_type(type) + value;
    ++pair_count_;
    return *this;
  }
  GgufBuilder& u32(std::string_view key, uint32_t value) {
    return raw(key, GgufType::kU32, little(value, 4));
  }
  GgufBuilder& f32(std::string_view key, float value) {
    return raw(key, GgufType::kF32, little(std::bit_cast<uint32_t>(value), 4));
  }
  GgufBuilder& flag(std::string_view key, bool value) {
    return raw(key, GgufType::kBool, little(value ? 1 : 0, 1));
  }
  GgufBuilder& text(std::string_view key, std::string_view value) {
    return raw(key, GgufType::kString, gguf_string(value));
  }
  GgufBuilder& texts(std::string_view key, const std::vector<std::string>& values) {
    std::string bytes = gguf_type(GgufType::kString) + little(values.size(), 8);
    for (const std::string& value : values) bytes += gguf_string(value);
    return raw(key, GgufType::kArray, bytes);
  }
  GgufBuilder& i32s(std::string_view key, const std::vector<int32_t>& values) {
    std::string bytes = gguf_type(GgufType::kI32) + little(values.size(), 8);
    for (const int32_t value : values) bytes += little(static_cast<uint32_t>(value), 4);
    return raw(key, GgufType::kArray, bytes);
  }
  // extents innermost first, as the file has them.
  GgufBuilder& tensor(std::string_view name, const std::vector<uint64_t>& extents, uint32_t type,
                      const std::string& data) {
    pad(data_);
    declare(name, extents, type, data_.size());
    data_ += data;
    return *this;
  }
  GgufBuilder& declare(std::string_view name, const std::vector<uint64_t>& extents, uint32_t type,
                       uint64_t offset) {
    tensors_ += gguf_string(name) + little(extents.size(), 4);
    for (const uint64_t extent : extents) tensors_ += little(extent, 8);
    tensors_ += little(type, 4) + little(offset, 8);
    ++tensor_count_;
    return *this;
  }
  GgufBuilder& align(size_t alignment) {
    alignment_ = alignment;
    return u32("general.alignment", static_cast<uint32_t>(alignment));
  }

  std::string build(uint32_t version = 3) const {
    std::string out = "GGUF" + little(version, 4) + little(tensor_count_, 8) +
                      little(pair_count_, 8) + pairs_ + tensors_;
    pad(out);
    return out + data_;
  }

 private:
  void pad(std::string& bytes) const {
    while (bytes.size() % alignment_ != 0) bytes += '\0';
  }
  std::string pairs_;
  std::string tensors_;
  std::string data_;
  uint64_t pair_count_ = 0;
  uint64_t tensor_count_ = 0;
  size_t alignment_ = 32;
};

}  // namespace coppice::model
