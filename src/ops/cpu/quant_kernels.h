// What:    products with block-quantised weights: layout of packed weights and rows, and the inner
//          loops of one instruction set as a table of functions.
// Owns:    nothing; the tables are constants.
// Threads: pure functions.
// Fails:   never.
//
// Activations are quantised as ggml does it: a block of a row (32 values, 256 for the K types)
// becomes signed bytes a[k] = round(x[k] * 127 / max|x|) and one scale da = max|x| / 127.
// Arithmetic of out[t, n], whatever the tile, the row count or the instruction set:
//   acc = 0; for every block b in order, with exact integer sums over the block,
//     S = sum_g scales[g] * sum_(k in g) a[k] * (codes[k] - offset)
//     M = sum_g mins[g] * sum_(k in g) a[k]
//     acc = fma(S, d * da, acc); with minima also acc = fma(M, -(dmin * da), acc)
//   out = acc + bias[n]. A block of x that is not finite has da = NaN.
//
// Packed weights: panels of W = 2 vectors of L 32-bit lanes, a lane a column: [ceil(N / W)][K /
// block][block image]. A vector of codes holds four consecutive depths in each lane's bytes. With
// chunk = 32 depths:
//   Q8_0: d f16 [W]; per 4 depths, per vector: bytes
//   Q4_0: d f16 [W]; per j < 4, per vector: depths 4 j.. in the low nibbles, 16 + 4 j.. in the high
//   K:    d f16 [W]; dmin f16 [W] (Q4_K, Q5_K); per two groups: scales u8 (Q6_K: i8) [W][2]; the
//         same for minima; then per chunk: upper bits (Q5_K: bit g of a byte belongs to depth 4 g +
//         byte; Q6_K: two vectors, 2 bits each, of depths 0-15 and 16-31), then nibbles as in Q4_0
//
// Quantised rows: tiles of 4 rows, then 2, then 1 for what is left, a tile after the other. A tile
// of h rows is [K / block] records of 32-bit words, so that what a tile needs is one stream:
//   scales: da f32 [h]
//   sums of codes: blocks of 32: one number [h]; of 256: 4 words [h] of two 16-bit sums over groups
//         of 32, then 8 words [h] of two over groups of 16
//   codes: [block / 4][h] words of four depths
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ops/cpu/isa.h"
#include "tensor/dtype.h"

namespace coppice::ops::cpu {

// How the rows of a product are laid out: all that is left of the weight's type.
struct QuantRowFormat {
  int32_t block = 32;
  bool operator==(const QuantRowFormat&) const = default;
  int64_t sums() const { return block == 32 ? 1 : 12; }
  int64_t record_words() const { return 1 + sums() + block / 4; }  // of one row
  int64_t row_bytes(int64_t depth) const { return depth / block * record_words() * 4; }
};

// The tile that a row among `rows` belongs to.
struct QuantRowTile {
  int64_t first, height;
};
constexpr QuantRowTile quant_row_tile(int64_t row, int64_t rows) {
  const int64_t fours = rows / 4 * 4;
  if (row < fours) return {row / 4 * 4, 4};
  if (rows - fours >= 2 && row < fours + 2) return {fours, 2};
  return {rows - 1, 1};
}

// Rows quantised for a product, as above.
struct QuantRows {
  std::byte* data = nullptr;
  QuantRowFormat format;
  int64_t rows = 0;   // T
  int64_t depth = 0;  // K

  int64_t blocks() const { return depth / format.block; }
  std::byte* tile(int64_t first_row) const { return data + first_row * format.row_bytes(depth); }
};

// Rows [first_row, first_row + rows) times panels [0, panels) of a run. first_row begins a tile,
// and the rows end with one.
struct QuantBlockProduct {
  QuantRows x;
  int64_t first_row = 0;
  int64_t rows = 0;  // at most kQuantRowsTogether
  const std::byte* weights = nullptr;
  int64_t columns = 0;          // the last panel may be partly used
  const float* bias = nullptr;  // [columns] or null
  float* out = nullptr;         // [rows, columns], rows out_stride apart
  int64_t out_stride = 0;
};
inline constexpr int64_t kQuantRowsTogether = 96;

struct QuantKernels {
  std::string_view name;
  int32_t lanes;  // L
  // x [K] to row t of `to`.
  void (*quantise_row)(const float* x, const QuantRows& to, int64_t t);
  void (*product)(DType type, const QuantBlockProduct& product);
};

// Bytes of a block image of W columns.
int64_t packed_block_bytes(DType type, int32_t lanes);

const QuantKernels& quant_kernels_avx2();
const QuantKernels& quant_kernels_avx512();
// The table for an instruction set this build has (kAvx512Bf16 shares kAvx512's).
inline const QuantKernels& quant_kernels(Isa isa) {
  return isa == Isa::kAvx2 ? quant_kernels_avx2() : quant_kernels_avx512();
}

}  // namespace coppice::ops::cpu
