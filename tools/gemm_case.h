// What:    products x [rows, K] . w [N, K]^T of one weight type, as a model's would be: loaded into
//          the backend's layout, either one matrix over and over or copies in turn.
// Owns:    the backend, the matrices, input and output.
// Threads: one; the backend's workers below.
// Fails:   create, load: kTooLarge naming the bytes, kInvalidArgument naming the shape.
#pragma once

#include <memory>
#include <vector>

#include "coppice/error.h"
#include "ops/backends.h"

namespace coppice::tools {

struct GemmShape {
  int64_t n = 0, k = 0;  // outputs and inputs of the weight
};

class GemmCase {
 public:
  // The backend for weights of this type and a step of at most so many rows.
  static Expected<std::unique_ptr<GemmCase>> create(DType type, int64_t most_rows,
                                                    const ops::BackendOptions& options);

  // Random matrices of this shape: as many copies as outgrow `cache` bytes several times.
  Status load(const GemmShape& shape, int64_t cache);

  // The same matrix as last time, or the next copy.
  void multiply(int64_t rows, bool cold);

  // Whether the copies outgrow the cache; false for small shapes, where they would be too many.
  bool has_cold() const { return has_cold_; }
  int64_t copies() const { return static_cast<int64_t>(weights_.size()); }
  int64_t weight_bytes() const { return weights_.front()->bytes(); }
  double flops(int64_t rows) const;
  double bytes(int64_t rows) const;  // weights, input and output, each once

 private:
  GemmCase(DType type, int64_t most_rows, std::unique_ptr<ops::Backend> backend)
      : type_(type), most_rows_(most_rows), backend_(std::move(backend)) {}

  DType type_;
  int64_t most_rows_;
  std::unique_ptr<ops::Backend> backend_;
  GemmShape shape_;
  bool has_cold_ = false;
  size_t next_ = 0;
  std::vector<std::unique_ptr<ops::Weight>> weights_;
  std::vector<float> x_;    // [most_rows, K]
  std::vector<float> out_;  // [most_rows, N]
};

}  // namespace coppice::tools
