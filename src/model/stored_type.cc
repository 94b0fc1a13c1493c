#include "model/stored_type.h"

#include "tensor/quant_block.h"

namespace coppice::model {

DType stored_type(DType model_type, std::string_view name, const Shape& shape) {
  if (shape.rank() != 2) return DType::kF32;
  const bool vocabulary = name.starts_with("model.embed_tokens") || name.starts_with("lm_head");
  DType type = model_type;
  if (vocabulary && is_quantised(type) && quant_format(type).bits < 6) type = DType::kQ8_0;
  if (shape[1] % dtype_block(type) != 0) type = DType::kQ8_0;
  return shape[1] % dtype_block(type) == 0 ? type : DType::kBF16;
}

}  // namespace coppice::model
