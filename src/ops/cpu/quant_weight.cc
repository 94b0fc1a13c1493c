#include "ops/cpu/quant_weight.h"

#include <algorithm>
#include <array>

#include "ops/cpu/quant_image.h"
#include "ops/lazy_memory.h"
#include "ops/op_checks.h"
#include "ops/weight_source.h"

namespace coppice::ops::cpu {
namespace {

// Rows multiplied together keep their codes in the second-level cache while the panels pass.
constexpr int64_t kRowBytes = int64_t{192} << 10;

int64_t rounded_up(int64_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

Status QuantScratch::reserve(int64_t count, int64_t depth) {
  // A code a value; a scale in 32 values; a sum in 16.
  const int64_t values = count * depth;
  return grow_lazily(memory_, rounded_up(values) +
                                  rounded_up(values / 32 * int64_t{sizeof(float)}) +
                                  rounded_up(values / 16 * int64_t{sizeof(int16_t)}));
}

QuantRows QuantScratch::rows(DType type, int64_t count, int64_t depth) {
  const QuantFormat format = quant_format(type);
  QuantRows rows;
  rows.depth = depth;
  rows.blocks = depth / format.block;
  rows.groups = depth / format.group;
  const int64_t codes = rounded_up(count * depth);
  const int64_t scales = rounded_up(count * rows.blocks * int64_t{sizeof(float)});
  const int64_t sums = rounded_up(count * rows.groups * int64_t{sizeof(int16_t)});
  CHECK(grow_lazily(memory_, codes + scales + sums) &&
        "no address space for the quantised rows of a product");
  rows.codes = reinterpret_cast<int8_t*>(memory_.data());
  rows.scales = reinterpret_cast<float*>(memory_.data() + codes);
  rows.sums = reinterpret_cast<int16_t*>(memory_.data() + codes + scales);
  return rows;
}

std::byte* QuantWeight::block_image(int64_t panel, int64_t block) const {
  const int64_t blocks = cols_ / dtype_block(type_);
  return panels_.data() + (panel * blocks + block) * packed_block_bytes(type_, kernels_.lanes);
}

Expected<std::unique_ptr<QuantWeight>> QuantWeight::pack(ThreadPool& pool,
                                                         const QuantKernels& kernels,
                                                         QuantScratch& scratch,
                                                         const TensorView& w) {
  TRY_STATUS(check_weight_source(w));
  CHECK(is_quantised(w.type()));
  const int64_t rows = w.shape()[0], cols = w.shape()[1], width = 2 * kernels.lanes;
  const int64_t blocks = cols / dtype_block(w.type()), panels = (rows + width - 1) / width;
  TRY(Buffer memory,
      allocate_lazily(panels * blocks * packed_block_bytes(w.type(), kernels.lanes)));
  std::unique_ptr<QuantWeight> packed(
      new QuantWeight(std::move(memory), kernels, scratch, w.type(), rows, cols));
  const auto* from = static_cast<const std::byte*>(w.raw());
  pool.parallel_for(static_cast<int32_t>(panels), [&](int32_t panel, int32_t) {
    for (int64_t b = 0; b < blocks; ++b) {
      const QuantImage image(w.type(), kernels.lanes, packed->block_image(panel, b));
      for (int64_t c = 0; c < std::min(width, rows - panel * width); ++c) {
        const int64_t at = ((panel * width + c) * blocks + b) * dtype_block_bytes(w.type());
        image.write(c, read_quant_block(w.type(), from + at));
      }
    }
  });
  return packed;
}

void QuantWeight::read_row(int64_t n, float* out) const {
  const int64_t block = dtype_block(type_);
  for (int64_t b = 0; b < cols_ / block; ++b) {
    const QuantImage image(type_, kernels_.lanes, block_image(n / panel_columns(), b));
    dequantise(type_, image.read(n % panel_columns()), out + b * block);
  }
}

void QuantWeight::multiply(ThreadPool& pool, const TensorView& x, const TensorView& bias,
                           const TensorView& out) const {
  check_matmul(x, *this, bias, out);
  const int64_t rows = x.shape()[0];
  if (rows == 0) return;
  const QuantRows quantised = scratch_.rows(type_, rows, cols_);
  const float* input = x.f32();
  const int64_t row_cuts = count_runs(pool, rows, cols_);
  pool.parallel_for(static_cast<int32_t>(row_cuts), [&](int32_t i, int32_t) {
    const int64_t end = run_begin(rows, row_cuts, i + 1);
    for (int64_t t = run_begin(rows, row_cuts, i); t < end; ++t) {
      kernels_.quantise_row(type_, input + t * cols_, quantised, t);
    }
  });
  const float* offsets = bias.empty() ? nullptr : bias.f32();
  float* output = out.f32();
  const int64_t panels = panel_count();
  const int64_t runs = std::min(count_runs(pool, panels * rows, panel_columns() * cols_), panels);
  const int64_t together = std::max<int64_t>(4, kRowBytes / std::max<int64_t>(cols_, 1) / 4 * 4);
  pool.parallel_for(static_cast<int32_t>(runs), [&](int32_t i, int32_t) {
    const int64_t first = run_begin(panels, runs, i), end = run_begin(panels, runs, i + 1);
    const int64_t column = first * panel_columns();
    for (int64_t row = 0; row < rows; row += together) {
      kernels_.product(type_, {.x = quantised,
                               .first_row = row,
                               .rows = std::min(together, rows - row),
                               .weights = block_image(first, 0),
                               .columns = std::min(rows_, end * panel_columns()) - column,
                               .bias = offsets != nullptr ? offsets + column : nullptr,
                               .out = output + row * rows_ + column,
                               .out_stride = rows_});
    }
  });
}

}  // namespace coppice::ops::cpu
