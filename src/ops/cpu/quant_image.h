// What:    one column's part of a packed block image (quant_kernels.h has the layout).
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never.
#pragma once

#include <array>

#include "ops/cpu/quant_kernels.h"
#include "tensor/quant_block.h"

namespace coppice::ops::cpu {

// An image of 2 * lanes columns.
class QuantImage {
 public:
  QuantImage(DType type, int32_t lanes, std::byte* image)
      : format_(quant_format(type)), lanes_(lanes), image_(image) {}

  void write(int64_t column, const QuantBlock& block) const;
  // The parts as they were written.
  QuantBlock read(int64_t column) const;
  static int64_t bytes(const QuantFormat& format, int32_t lanes);

 private:
  bool has_groups() const { return format_.block == 256; }
  int64_t width() const { return 2 * lanes_; }
  std::byte* halves(int which, int64_t column) const {
    return image_ + (which * width() + column) * 2;
  }
  // The byte of group g's scale (which = 0) or minimum (1).
  std::byte* group_byte(int which, int64_t g, int64_t column) const;
  // The bytes of a chunk (32 values): first its upper bits, then its codes.
  std::byte* chunk(int64_t c) const;
  std::byte* vector_byte(std::byte* chunk, int64_t vector, int64_t column, int64_t depth) const;
  int64_t upper_vectors() const { return format_.bits == 5 ? 1 : format_.bits == 6 ? 2 : 0; }
  using Word = std::array<uint8_t, 4>;  // four depths of a column
  void put(int64_t c, int64_t vector, int64_t column, const Word& word) const;
  void write_chunk(int64_t column, int64_t c, const int16_t* codes) const;
  int read_code(int64_t column, int64_t i) const;

  QuantFormat format_;
  int64_t lanes_;
  std::byte* image_;
};

}  // namespace coppice::ops::cpu
