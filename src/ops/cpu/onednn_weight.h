// What:    weights in oneDNN's packed layout and their product, where a probe found it fit to use.
// Owns:    OneDnn: the library's engine, primitives and scratch; OneDnnWeight: packed slices.
// Threads: one caller; the pool's threads run primitives made for one thread on slices of columns.
// Fails:   make, pack: kInternal with the library's reason; reserve: kTooLarge. The product cannot
//          fail after that.
//
// A product is cut into slices of kSlice columns and pieces of 1, 2, 4, ... 64 rows, a primitive of
// fixed size for each: oneDNN 2.6.3 falls to another implementation, with other bits, for row
// counts known at run time only and for a destination with gaps. So x is copied (rounded to bf16
// where the weights are bf16), a piece is computed into a dense buffer, and the bias joins on its
// way out. A product allocates nothing but what the library does for itself.
#pragma once

#include <memory>
#include <string>

#include "ops/cpu/cpu_weight.h"

namespace coppice::ops::cpu {

class OneDnn {
 public:
  static Expected<std::unique_ptr<OneDnn>> make(int threads);
  ~OneDnn();

  // Room for x [rows, cols] of any product of weights of this type. Without it, room is made by
  // the first such product.
  Status reserve(DType type, int64_t rows, int64_t cols);
  int64_t scratch_bytes() const;

 private:
  friend class OneDnnWeight;
  struct State;
  explicit OneDnn(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

class OneDnnWeight : public CpuWeight {
 public:
  static constexpr int64_t kSlice = 256;

  // w [N, K] as check_weight_source allows, rounded to `type` (kF32 or kBF16). `onednn` is kept.
  static Expected<std::unique_ptr<OneDnnWeight>> pack(OneDnn& onednn, ThreadPool& pool,
                                                      const TensorView& w, DType type);
  // What packing or, where it follows, the probe takes while it runs.
  static int64_t loading_bytes(DType type, const Shape& shape, bool probed);
  ~OneDnnWeight() override;

  // Why this weight must not be used, or empty: every primitive must be `implementation`, a row's
  // bits the same from pieces of every height, and its values near those of a plain sum.
  std::string probe(ThreadPool& pool, std::string_view implementation) const;

  int64_t rows() const override;
  int64_t cols() const override;
  int64_t bytes() const override;
  PreparedRows prepared_rows() const override { return PreparedRows::kOneDnn; }
  void prepare(ThreadPool& pool, const TensorView& x) const override;
  int64_t part_count(const ThreadPool& pool, int64_t rows) const override;
  void multiply_part(const ProductPart& part) const override;
  void read_row(int64_t n, float* out) const override;

 private:
  struct State;
  explicit OneDnnWeight(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace coppice::ops::cpu
