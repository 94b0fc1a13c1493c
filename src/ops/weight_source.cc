#include "ops/weight_source.h"

#include <string>

#include "tensor/quant_block.h"

namespace coppice::ops {
Status check_weight_source(const TensorView& w) {
  const DType type = w.type();
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16 && !is_quantised(type)) {
    return fail(ErrorCode::kUnsupported,
                "weights of type " + std::string(dtype_name(type)) +
                    " are not supported (f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k are)");
  }
  if (w.shape().rank() != 2 || w.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "a weight must be a matrix, not of shape " + w.shape().text());
  }
  if (w.shape()[1] % dtype_block(type) != 0) {
    return fail(ErrorCode::kInvalidArgument, "rows of a " + std::string(dtype_name(type)) +
                                                 " weight hold whole blocks of " +
                                                 std::to_string(dtype_block(type)) + ", not " +
                                                 std::to_string(w.shape()[1]) + " values");
  }
  return {};
}

}  // namespace coppice::ops
