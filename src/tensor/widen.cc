#include "tensor/widen.h"

#include <algorithm>

#include "tensor/quant_block.h"

namespace coppice {
namespace {

template <class T>
void convert_row(const T* in, int64_t count, float* out) {
  std::transform(in, in + count, out, [](T x) { return to_float(x); });
}

void convert_blocks(DType type, const std::byte* in, int64_t blocks, float* out) {
  for (int64_t b = 0; b < blocks; ++b) {
    dequantise(type, read_quant_block(type, in + b * dtype_block_bytes(type)),
               out + b * dtype_block(type));
  }
}

}  // namespace

void widen_row(const TensorView& w, int64_t row, float* out) {
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
    default:
      CHECK(is_quantised(w.type()));
      return convert_blocks(w.type(), data, cols / dtype_block(w.type()), out);
  }
}

}  // namespace coppice
