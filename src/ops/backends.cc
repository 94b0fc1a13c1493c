#include "ops/backends.h"

#include <array>

#include "ops/cpu/cpu_backend.h"
#include "ops/ref/ref_backend.h"

namespace coppice::ops {
namespace {

constexpr int kMaxThreads = 1024;

struct Entry {
  std::string_view name;
  Expected<std::unique_ptr<Backend>> (*make)(const BackendOptions& options);
};

Expected<std::unique_ptr<Backend>> make_ref(const BackendOptions& options) {
  return make_ref_backend(options.weights);
}

constexpr std::array kBackends{Entry{"cpu", cpu::CpuBackend::create}, Entry{"ref", make_ref}};

Status check_options(const BackendOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return fail(ErrorCode::kInvalidArgument, "threads must be 0 (one per core) to " +
                                                 std::to_string(kMaxThreads) + ", not " +
                                                 std::to_string(options.threads));
  }
  if (options.weights != DType::kBF16 && options.weights != DType::kF32) {
    return fail(ErrorCode::kInvalidArgument, "weights compute in bf16 or f32, not in " +
                                                 std::string(dtype_name(options.weights)));
  }
  return {};
}

}  // namespace

Expected<std::unique_ptr<Backend>> make_backend(std::string_view name,
                                                const BackendOptions& options) {
  TRY_STATUS(check_options(options));
  std::string known;
  for (const Entry& entry : kBackends) {
    if (entry.name == name) return entry.make(options);
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  return fail(ErrorCode::kUnsupported,
              "no backend \"" + std::string(name) + "\" in this build (" + known + ")");
}

}  // namespace coppice::ops
