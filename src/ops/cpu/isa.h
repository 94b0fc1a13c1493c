// What:    which instruction set the cpu backend computes with.
// Owns:    nothing.
// Threads: any.
// Fails:   choose_isa: kInvalidArgument (unknown name), kUnsupported (naming what this CPU has).
#pragma once

#include <string_view>

#include "coppice/error.h"

namespace coppice::ops::cpu {

enum class Isa { kAvx2, kAvx512, kAvx512Bf16 };

std::string_view isa_name(Isa isa);
// auto | avx512bf16 | avx512 | avx2: the best one, or the named one if this CPU has it.
Expected<Isa> choose_isa(std::string_view name);

}  // namespace coppice::ops::cpu
