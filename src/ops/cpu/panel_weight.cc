#include "ops/cpu/panel_weight.h"

#include <algorithm>
#include <vector>

#include "ops/lazy_memory.h"
#include "ops/weight_source.h"

namespace coppice::ops::cpu {
namespace {

// A run of rows shorter than this reads the weights too often for what it multiplies.
constexpr int64_t kLeastRows = 48;

}  // namespace

int64_t PanelWeight::packed_bytes(const DenseKernels& kernels, DType type, const Shape& shape) {
  const int64_t panels = (shape[0] + kernels.panel - 1) / kernels.panel;
  return dtype_bytes(type, panels * kernels.panel * shape[1]);
}

Expected<std::unique_ptr<PanelWeight>> PanelWeight::pack(ThreadPool& pool,
                                                         const DenseKernels& kernels,
                                                         const TensorView& w, DType type) {
  TRY_STATUS(check_weight_source(w));
  const int64_t rows = w.shape()[0], cols = w.shape()[1];
  TRY(Buffer panels, allocate_lazily(packed_bytes(kernels, type, w.shape())));
  std::unique_ptr<PanelWeight> packed(
      new PanelWeight(std::move(panels), kernels, type, rows, cols));
  std::vector<std::vector<float>> scratch(static_cast<size_t>(pool.threads()),
                                          std::vector<float>(static_cast<size_t>(cols)));
  pool.parallel_for(static_cast<int32_t>(packed->panel_count()), [&](int32_t p, int32_t thread) {
    packed->pack_panel(w, p, scratch[static_cast<size_t>(thread)].data());
  });
  return packed;
}

void PanelWeight::pack_panel(const TensorView& w, int64_t p, float* row) {
  const int64_t begin = p * kernels_.panel;
  const int64_t columns = std::min<int64_t>(kernels_.panel, rows_ - begin);
  std::byte* to = panel(p);
  for (int64_t c = 0; c < columns; ++c) {
    widen_row(w, begin + c, row);
    for (int64_t k = 0; k < cols_; ++k) {
      const int64_t at = panel_offset(type_, kernels_.panel, k, c);
      if (type_ == DType::kBF16) {
        reinterpret_cast<bf16*>(to)[at] = to_bf16(row[k]);
      } else {
        reinterpret_cast<float*>(to)[at] = row[k];
      }
    }
  }
}

void PanelWeight::read_row(int64_t n, float* out) const {
  const std::byte* from = panel(n / kernels_.panel);
  for (int64_t k = 0; k < cols_; ++k) {
    const int64_t at = panel_offset(type_, kernels_.panel, k, n % kernels_.panel);
    out[k] = type_ == DType::kBF16 ? to_float(reinterpret_cast<const bf16*>(from)[at])
                                   : reinterpret_cast<const float*>(from)[at];
  }
}

int64_t PanelWeight::row_runs(int64_t rows, int64_t parts) const {
  const int64_t panels = std::max<int64_t>(panel_count(), 1);
  return std::clamp<int64_t>(rows / kLeastRows, 1, parts / std::min(parts, panels));
}

int64_t PanelWeight::part_count(const ThreadPool& pool, int64_t rows) const {
  const int64_t panels = panel_count();
  const int64_t parts = count_runs(pool, panels * rows, kernels_.panel * cols_);
  return std::min(parts, panels * row_runs(rows, parts));
}

void PanelWeight::multiply_part(const ProductPart& part) const {
  const int64_t panels = panel_count();
  const int64_t row_runs = this->row_runs(part.rows, part.count);
  const int64_t panel_runs = part.count / row_runs;
  if (part.index >= panel_runs * row_runs) return;
  const int64_t first = run_begin(panels, panel_runs, part.index / row_runs);
  const int64_t end = run_begin(panels, panel_runs, part.index / row_runs + 1);
  if (first == end) return;
  const int64_t row = run_begin(part.rows, row_runs, part.index % row_runs);
  const int64_t column = first * kernels_.panel;
  const auto product = type_ == DType::kBF16 ? kernels_.product_bf16 : kernels_.product_f32;
  product({.x = part.x + row * cols_,
           .rows = run_begin(part.rows, row_runs, part.index % row_runs + 1) - row,
           .depth = cols_,
           .weights = panel(first),
           .columns = std::min(rows_, end * kernels_.panel) - column,
           .bias = part.bias != nullptr ? part.bias + column : nullptr,
           .out = part.out + row * rows_ + column,
           .out_stride = rows_});
}

}  // namespace coppice::ops::cpu
