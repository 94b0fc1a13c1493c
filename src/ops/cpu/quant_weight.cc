#include "ops/cpu/quant_weight.h"

#include <algorithm>
#include <array>

#include "ops/cpu/quant_image.h"
#include "ops/lazy_memory.h"
#include "ops/weight_source.h"

namespace coppice::ops::cpu {
namespace {

// Rows multiplied together stay in the second-level cache, quantised, while the panels pass.
constexpr int64_t kRowBytes = int64_t{256} << 10;

}  // namespace

Status QuantScratch::reserve(int64_t count, int64_t depth) {
  const int64_t blocks = (depth + 31) / 32;  // the smallest take most
  return grow_lazily(memory_, count * QuantRowFormat{.block = 32}.row_bytes(blocks * 32));
}

void QuantScratch::make_room(const QuantRowFormat& format, int64_t count, int64_t depth) {
  CHECK(grow_lazily(memory_, count * format.row_bytes(depth)) &&
        "no address space for the quantised rows of a product");
}

QuantRows QuantScratch::rows(const QuantRowFormat& format, int64_t count, int64_t depth) const {
  return {memory_.data(), format, count, depth};
}

std::byte* QuantWeight::block_image(int64_t panel, int64_t block) const {
  const int64_t blocks = cols_ / dtype_block(type_);
  return panels_.data() + (panel * blocks + block) * packed_block_bytes(type_, kernels_.lanes);
}

int64_t QuantWeight::packed_bytes(const QuantKernels& kernels, DType type, const Shape& shape) {
  const int64_t width = 2 * kernels.lanes, panels = (shape[0] + width - 1) / width;
  return panels * (shape[1] / dtype_block(type)) * packed_block_bytes(type, kernels.lanes);
}

Expected<std::unique_ptr<QuantWeight>> QuantWeight::pack(ThreadPool& pool,
                                                         const QuantKernels& kernels,
                                                         QuantScratch& scratch,
                                                         const TensorView& w) {
  TRY_STATUS(check_weight_source(w));
  CHECK(is_quantised(w.type()));
  const int64_t rows = w.shape()[0], cols = w.shape()[1], width = 2 * kernels.lanes;
  const int64_t blocks = cols / dtype_block(w.type()), panels = (rows + width - 1) / width;
  TRY(Buffer memory, allocate_lazily(packed_bytes(kernels, w.type(), w.shape())));
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

void QuantWeight::prepare(ThreadPool& pool, const TensorView& x) const {
  const int64_t rows = x.shape()[0];
  scratch_.make_room(format(), rows, cols_);
  const QuantRows quantised = scratch_.rows(format(), rows, cols_);
  const float* input = x.f32();
  const int64_t runs = count_runs(pool, rows, cols_);
  pool.parallel_for(static_cast<int32_t>(runs), [&](int32_t i, int32_t) {
    const int64_t end = run_begin(rows, runs, i + 1);
    for (int64_t t = run_begin(rows, runs, i); t < end; ++t) {
      kernels_.quantise_row(input + t * cols_, quantised, t);
    }
  });
}

int64_t QuantWeight::part_count(const ThreadPool& pool, int64_t rows) const {
  const int64_t panels = panel_count();
  return std::min(count_runs(pool, panels * rows, panel_columns() * cols_), panels);
}

void QuantWeight::multiply_part(const ProductPart& part) const {
  const int64_t panels = panel_count();
  const int64_t first = run_begin(panels, part.count, part.index);
  const int64_t end = run_begin(panels, part.count, part.index + 1);
  if (first == end) return;
  const int64_t column = first * panel_columns();
  const int64_t row_bytes = std::max<int64_t>(format().row_bytes(cols_), 1);
  const int64_t together =
      std::clamp<int64_t>(kRowBytes / row_bytes / 4 * 4, 4, kQuantRowsTogether);
  for (int64_t row = 0; row < part.rows; row += together) {
    kernels_.product(type_, {.x = scratch_.rows(format(), part.rows, cols_),
                             .first_row = row,
                             .rows = std::min(together, part.rows - row),
                             .weights = block_image(first, 0),
                             .columns = std::min(rows_, end * panel_columns()) - column,
                             .bias = part.bias != nullptr ? part.bias + column : nullptr,
                             .out = part.out + row * rows_ + column,
                             .out_stride = rows_});
  }
}

}  // namespace coppice::ops::cpu
