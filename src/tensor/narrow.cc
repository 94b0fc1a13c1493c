#include "tensor/narrow.h"

#include <algorithm>

#include "tensor/quant_block.h"
#include "tensor/quantise.h"

namespace coppice {

bool can_narrow(DType type) {
  return type == DType::kF32 || type == DType::kF16 || type == DType::kBF16 || is_quantised(type);
}

void narrow_row(DType type, const float* x, int64_t count, std::byte* out) {
  switch (type) {
    case DType::kF32:
      std::copy_n(x, count, reinterpret_cast<float*>(out));
      return;
    case DType::kF16:
      std::transform(x, x + count, reinterpret_cast<f16*>(out), to_f16);
      return;
    case DType::kBF16:
      std::transform(x, x + count, reinterpret_cast<bf16*>(out), to_bf16);
      return;
    default:
      return quantise(type, x, count, out);
  }
}

}  // namespace coppice
