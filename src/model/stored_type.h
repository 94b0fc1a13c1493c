// What:    which type each tensor of a model has when the model is stored in one type.
// Owns:    nothing.
// Threads: pure functions.
// Fails:   never.
#pragma once

#include <string_view>

#include "tensor/tensor.h"

namespace coppice::model {

// name: Hugging Face's. Norms and biases are F32. Embeddings and the output matrix of the 4 and
// 5-bit types are Q8_0, as are matrices whose rows are no whole blocks of 256 where the type's are;
// rows that are no whole blocks of 32 are BF16.
DType stored_type(DType model_type, std::string_view name, const Shape& shape);

}  // namespace coppice::model
