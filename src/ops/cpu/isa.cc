#include "ops/cpu/isa.h"

#include <array>

#include "base/check.h"

namespace coppice::ops::cpu {
namespace {

struct Entry {
  std::string_view name;
  Isa isa;
  bool (*available)();
};

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}
bool has_avx512bf16() { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }

// Best first.
constexpr std::array<Entry, 3> kIsas{{{"avx512bf16", Isa::kAvx512Bf16, has_avx512bf16},
                                      {"avx512", Isa::kAvx512, has_avx512},
                                      {"avx2", Isa::kAvx2, has_avx2}}};

}  // namespace

std::string_view isa_name(Isa isa) {
  for (const Entry& entry : kIsas) {
    if (entry.isa == isa) return entry.name;
  }
  CHECK(false && "every Isa has a name");
  return {};
}

Expected<Isa> choose_isa(std::string_view name) {
  bool known = name == "auto";
  std::string present;
  for (const Entry& entry : kIsas) {
    known |= name == entry.name;
    if (!entry.available()) continue;
    if (name == "auto" || name == entry.name) return entry.isa;
    present += (present.empty() ? "" : ", ") + std::string(entry.name);
  }
  const std::string asked = "isa \"" + std::string(name) + "\"";
  if (!known) {
    return fail(ErrorCode::kInvalidArgument,
                asked + " is not one of auto, avx512bf16, avx512, avx2");
  }
  return fail(ErrorCode::kUnsupported, asked + " is not available: this CPU has " +
                                           (present.empty() ? "none of them" : present));
}

}  // namespace coppice::ops::cpu
