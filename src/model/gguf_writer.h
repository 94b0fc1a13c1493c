// What:    writes a GGUF v3 file: metadata, then every tensor's bytes as they are made.
// Owns:    the metadata and the list of tensors.
// Threads: one.
// Fails:   write: as write_file (base/file.h), or with what the caller's function fails with.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"
#include "tensor/tensor.h"

namespace coppice::model {

class GgufWriter {
 public:
  void integer(std::string_view key, uint32_t value);
  void number(std::string_view key, float value);
  void flag(std::string_view key, bool value);
  void text(std::string_view key, std::string_view value);
  void texts(std::string_view key, const std::vector<std::string>& values);
  void integers(std::string_view key, const std::vector<int32_t>& values);
  // shape: outermost first, as everywhere in this project. The type must be one that gguf_type_id()
  // knows.
  void tensor(std::string_view name, const Shape& shape, DType type);

  // fill(i, bytes) makes the bytes of the i-th tensor, in order.
  using Fill = std::function<Status(size_t tensor, std::span<std::byte> bytes)>;
  Status write(const std::string& path, const Fill& fill) const;

 private:
  void key(std::string_view name, uint32_t type);

  std::string pairs_, tensors_;
  uint64_t pair_count_ = 0;
  std::vector<int64_t> sizes_;  // bytes of each tensor
  int64_t data_bytes_ = 0;
};

}  // namespace coppice::model
