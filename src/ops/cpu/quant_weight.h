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
  // Room for `count` rows of at most `depth` values in any format. Fails: kTooLarge.
  Status reserve(int64_t count, int64_t depth);
  void make_room(const QuantRowFormat& format, int64_t count, int64_t depth);
  // There must be room.
  QuantRows rows(const QuantRowFormat& format, int64_t count, int64_t depth) const;
  int64_t bytes() const { return memory_.bytes(); }

 private:
  Buffer memory_;
};

class QuantWeight : public CpuWeight {
 public:
  // w [N, K] of a quantised type. `kernels` and `scratch` are kept.
  static Expected<std::unique_ptr<QuantWeight>> pack(ThreadPool& pool, const QuantKernels& kernels,
                                                     QuantScratch& scratch, const TensorView& w);
  // What it takes: whole panels.
  static int64_t packed_bytes(const QuantKernels& kernels, DType type, const Shape& shape);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return panels_.bytes(); }
  PreparedRows prepared_rows() const override {
    return format().block == 32 ? PreparedRows::kBlocksOf32 : PreparedRows::kBlocksOf256;
  }
  void prepare(ThreadPool& pool, const TensorView& x) const override;
  int64_t part_count(const ThreadPool& pool, int64_t rows) const override;
  void multiply_part(const ProductPart& part) const override;
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

  QuantRowFormat format() const { return {static_cast<int32_t>(dtype_block(type_))}; }
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
