// What:    the table of backends: one function that makes one by name.
// Owns:    nothing.
// Threads: any.
// Fails:   kUnsupported names the backends that this build has.
#pragma once

#include <memory>
#include <string_view>

#include "coppice/error.h"
#include "ops/backend.h"

namespace coppice::ops {

struct BackendOptions {
  int threads = 0;                // 0: one per physical core
  std::string_view isa = "auto";  // auto | avx512bf16 | avx512 | avx2
  DType weights = DType::kBF16;   // compute type of plain weights: kBF16 or kF32
};

// name: "cpu" or "ref".
Expected<std::unique_ptr<Backend>> make_backend(std::string_view name,
                                                const BackendOptions& options);

}  // namespace coppice::ops
