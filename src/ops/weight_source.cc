#include "ops/weight_source.h"

#include <algorithm>

namespace coppice::ops {
namespace {

template <class T>
void convert_row(const T* in, int64_t count, float* out) {
  std::transform(in, in + count, out, [](T x) { return to_float(x); });
}

void convert_blocks(const BlockQ8_0* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    const float scale = to_float(in[b].scale);
    for (const int8_t quant : in[b].quants) *out++ = scale * static_cast<float>(quant);
  }
}

}  // namespace

Status check_weight_source(const TensorView& w) {
  const DType type = w.type();
  if (type != DType::kF32 && type != DType::kF16 && type != DType::kBF16 && type != DType::kQ8_0) {
    return fail(ErrorCode::kUnsupported, "weights of type " + std::string(dtype_name(type)) +
                                             " are not supported (f32, f16, bf16, q8_0 are)");
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

void read_weight_row(const TensorView& w, int64_t row, float* out) {
  const int64_t cols = w.shape()[1];
  const auto* data = static_cast<const std::byte*>(w.raw()) + dtype_bytes(w.type(), cols) * row;
  switch (w.type()) {
    case DType::kF32:
      std::copy_n(reinterpret_cast<const float*>(data), cols, out);
      return;
    case DType::kF16:
      return convert_row(reinterpret_cast<const f16*>(data), cols, out);
    case DType::kBF16:
      return convert_row(reinterpret_cast<const bf16*>(data), cols, out);
    case DType::kQ8_0:
      return convert_blocks(reinterpret_cast<const BlockQ8_0*>(data), cols / 32, out);
    case DType::kI8:
    case DType::kI32:
      break;
  }
  CHECK(false && "check_weight_source refuses this type");
}

}  // namespace coppice::ops
