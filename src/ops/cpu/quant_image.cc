#include "ops/cpu/quant_image.h"

#include <cstring>

namespace coppice::ops::cpu {
namespace {

constexpr int64_t kChunkDepth = 32;

int64_t code_vectors(const QuantFormat& format) { return format.bits == 8 ? 8 : 4; }

}  // namespace

int64_t QuantImage::bytes(const QuantFormat& format, int32_t lanes) {
  const int64_t width = 2 * lanes;
  const int64_t upper = format.bits == 5 ? 1 : format.bits == 6 ? 2 : 0;
  const int64_t chunks = format.block / kChunkDepth;
  int64_t total = 2 * width + chunks * (upper + code_vectors(format)) * 4 * width;
  if (format.block == 256) total += width * (256 / format.group);
  if (format.mins) total += 2 * width + width * (256 / format.group);
  return total;
}

int64_t packed_block_bytes(DType type, int32_t lanes) {
  return QuantImage::bytes(quant_format(type), lanes);
}

std::byte* QuantImage::group_byte(int which, int64_t g, int64_t column) const {
  const int64_t groups = 256 / format_.group;
  return image_ + (format_.mins ? 4 : 2) * width() + which * groups * width() +
         (g / 2 * width() + column) * 2 + g % 2;
}

std::byte* QuantImage::chunk(int64_t c) const {
  const int64_t groups = has_groups() ? 256 / format_.group : 0;
  const int64_t head = (format_.mins ? 4 : 2) * width() + groups * width() * (format_.mins ? 2 : 1);
  return image_ + head + c * (upper_vectors() + code_vectors(format_)) * 4 * width();
}

std::byte* QuantImage::vector_byte(std::byte* chunk, int64_t vector, int64_t column,
                                   int64_t depth) const {
  return chunk + (vector * width() + column) * 4 + depth % 4;
}

void QuantImage::put(int64_t c, int64_t vector, int64_t column, const Word& word) const {
  std::memcpy(vector_byte(chunk(c), vector, column, 0), word.data(), word.size());
}

// codes: the chunk's 32.
void QuantImage::write_chunk(int64_t column, int64_t c, const int16_t* codes) const {
  // Byte d of the word: `count` bits from bit `from` of the codes at first + step i + d, i < quads,
  // each above the one before.
  const auto gather = [&](int first, int quads, int from, int count, int step) {
    Word word{};
    for (int i = 0; i < quads; ++i) {
      for (size_t d = 0; d < word.size(); ++d) {
        const int bits =
            codes[static_cast<size_t>(first + step * i) + d] >> from & ((1 << count) - 1);
        word[d] = static_cast<uint8_t>(word[d] | bits << 8 / quads * i);
      }
    }
    return word;
  };
  if (format_.bits == 8) {
    for (int quad = 0; quad < 8; ++quad) put(c, quad, column, gather(4 * quad, 1, 0, 8, 4));
    return;
  }
  const int64_t upper = upper_vectors();
  for (int j = 0; j < 4; ++j) put(c, upper + j, column, gather(4 * j, 2, 0, 4, 16));
  if (format_.bits == 5) put(c, 0, column, gather(0, 8, 4, 1, 4));
  for (int half = 0; format_.bits == 6 && half < 2; ++half) {
    put(c, half, column, gather(16 * half, 4, 4, 2, 4));
  }
}

int QuantImage::read_code(int64_t column, int64_t i) const {
  std::byte* const at = chunk(i / kChunkDepth);
  const int64_t depth = i % kChunkDepth, quad = depth / 4;
  const auto get = [](const std::byte* byte) { return static_cast<int>(*byte); };
  if (format_.bits == 8) return static_cast<int8_t>(get(vector_byte(at, quad, column, depth)));
  const int64_t half = depth / 16, upper = upper_vectors();
  int code = get(vector_byte(at, upper + quad % 4, column, depth)) >> 4 * half & 15;
  if (format_.bits == 5) code |= (get(vector_byte(at, 0, column, depth)) >> quad & 1) << 4;
  if (format_.bits == 6) {
    code |= (get(vector_byte(at, half, column, depth)) >> 2 * (quad % 4) & 3) << 4;
  }
  return code;
}

void QuantImage::write(int64_t column, const QuantBlock& block) const {
  const f16 scale = to_f16(block.scale), least = to_f16(block.min_scale);  // exact: they were f16
  std::memcpy(halves(0, column), &scale, sizeof(scale));
  if (format_.mins) std::memcpy(halves(1, column), &least, sizeof(least));
  for (int64_t g = 0; has_groups() && g < 256 / format_.group; ++g) {
    *group_byte(0, g, column) = static_cast<std::byte>(block.scales[static_cast<size_t>(g)] & 255);
    if (format_.mins) {
      *group_byte(1, g, column) = static_cast<std::byte>(block.mins[static_cast<size_t>(g)]);
    }
  }
  for (int64_t c = 0; c < format_.block / kChunkDepth; ++c) {
    write_chunk(column, c, block.codes.data() + c * kChunkDepth);
  }
}

QuantBlock QuantImage::read(int64_t column) const {
  QuantBlock block;
  f16 scale, least;
  std::memcpy(&scale, halves(0, column), sizeof(scale));
  block.scale = to_float(scale);
  if (format_.mins) {
    std::memcpy(&least, halves(1, column), sizeof(least));
    block.min_scale = to_float(least);
  }
  block.scales[0] = 1;
  for (int64_t g = 0; has_groups() && g < 256 / format_.group; ++g) {
    const auto byte = static_cast<uint8_t>(*group_byte(0, g, column));
    block.scales[static_cast<size_t>(g)] =
        format_.bits == 6 ? int16_t{static_cast<int8_t>(byte)} : int16_t{byte};
    if (format_.mins) {
      block.mins[static_cast<size_t>(g)] = static_cast<uint8_t>(*group_byte(1, g, column));
    }
  }
  for (int64_t i = 0; i < format_.block; ++i) {
    block.codes[static_cast<size_t>(i)] = static_cast<int16_t>(read_code(column, i));
  }
  return block;
}

}  // namespace coppice::ops::cpu
