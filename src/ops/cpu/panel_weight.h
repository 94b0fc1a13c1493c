// What:    weights packed once into panels, and their product on our own kernels.
// Owns:    its panels.
// Threads: one caller; the pool's threads take runs of panels, or of rows where panels are few.
// Fails:   pack: kUnsupported, kInvalidArgument (the matrix), kTooLarge (no memory).
#pragma once

#include "ops/cpu/cpu_weight.h"
#include "ops/cpu/dense_kernels.h"

namespace coppice::ops::cpu {

class PanelWeight : public CpuWeight {
 public:
  // w [N, K] as check_weight_source allows, rounded to `type` (kF32 or kBF16). `kernels` is kept.
  static Expected<std::unique_ptr<PanelWeight>> pack(ThreadPool& pool, const DenseKernels& kernels,
                                                     const TensorView& w, DType type);
  // What it takes: whole panels.
  static int64_t packed_bytes(const DenseKernels& kernels, DType type, const Shape& shape);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return panels_.bytes(); }
  PreparedRows prepared_rows() const override { return PreparedRows::kNone; }
  void prepare(ThreadPool&, const TensorView&) const override {}
  int64_t part_count(const ThreadPool& pool, int64_t rows) const override;
  void multiply_part(const ProductPart& part) const override;
  void read_row(int64_t n, float* out) const override;

 private:
  PanelWeight(Buffer panels, const DenseKernels& kernels, DType type, int64_t rows, int64_t cols)
      : panels_(std::move(panels)), kernels_(kernels), type_(type), rows_(rows), cols_(cols) {}

  int64_t panel_count() const { return (rows_ + kernels_.panel - 1) / kernels_.panel; }
  // Panel p, [K][W] in the order of panel_offset.
  std::byte* panel(int64_t p) const {
    return panels_.data() + dtype_bytes(type_, p * kernels_.panel * cols_);
  }
  // Into how many runs the rows are cut when there are more parts than panels.
  int64_t row_runs(int64_t rows, int64_t parts) const;
  void pack_panel(const TensorView& w, int64_t p, float* row);

  Buffer panels_;
  const DenseKernels& kernels_;
  DType type_;
  int64_t rows_, cols_;
};

}  // namespace coppice::ops::cpu
