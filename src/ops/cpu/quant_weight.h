// What:    block-quantised weights as a file has them, packed once into panels of whole numbers and
//          their scales, and their product; no dequantised copy exists.
// Owns:    QuantWeight its panels; QuantScratch the quantised rows of one call.
// Threads: one caller; the pool's threads quantise rows, then take runs of panels.
// Fails:   pack: kInvalidArgument (the matrix), kTooLarge (no memory).
#pragma once

#include "ops/cpu/cpu_weight.h"
#include "ops/cpu/quant_kernels.h"

namespace coppice::ops::cpu {

// Shared by the weights of a backend; grows to the largest call that was not reserved.
class QuantScratch {
 public:
  // Room for `count` rows of at most `depth` values of any type. Fails: kTooLarge.
  Status reserve(int64_t count, int64_t depth);
  QuantRows rows(DType type, int64_t count, int64_t depth);
  int64_t bytes() const { return memory_.bytes(); }

 private:
  Buffer memory_;
};

class QuantWeight : public CpuWeight {
 public:
  // w [N, K] of a quantised type. `kernels` and `scratch` are kept.
  static Expected<std::unique_ptr<QuantWeight>> pack(ThreadPool& pool, const QuantKernels& kernels,
                                                     QuantScratch& scratch, const TensorView& w);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return panels_.bytes(); }
  void multiply(ThreadPool& pool, const TensorView& x, const TensorView& bias,
                const TensorView& out) const override;
  void read_row(int64_t n, float* out) const override;

 private:
  QuantWeight(Buffer panels, const QuantKernels& kernels, QuantScratch& scratch, DType type,
              int64_t rows, int64_t cols)
      : panels_(std::move(panels)),
        kernels_(kernels),
        scratch_(scratch),
        type_(type),
        rows_(rows),
        cols_(cols) {}

  int64_t panel_columns() const { return 2 * kernels_.lanes; }
  int64_t panel_count() const { return (rows_ + panel_columns() - 1) / panel_columns(); }
  std::byte* block_image(int64_t panel, int64_t block) const;

  Buffer panels_;
  const QuantKernels& kernels_;
  QuantScratch& scratch_;
  DType type_;
  int64_t rows_, cols_;
};

}  // namespace coppice::ops::cpu
