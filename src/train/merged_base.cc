#include "train/merged_base.h"

namespace coppice::train {
namespace {

bool holds_weights(const std::filesystem::path& file) {
  const std::string name = file.filename().string();
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") ||
         name.ends_with(".bin") || name.ends_with(".checkpoint");
}

}  // namespace

Status write_merged_base(const Twin& twin, const std::filesystem::path& from,
                         const std::filesystem::path& to) {
  std::error_code error;
  std::filesystem::create_directories(to, error);
  if (error) return fail(ErrorCode::kInternal, to.string() + ": " + error.message());
  if (std::filesystem::equivalent(from, to, error)) {
    return fail(ErrorCode::kInvalidArgument, to.string() + ": is the base itself");
  }
  for (const auto& entry : std::filesystem::directory_iterator(from, error)) {
    if (!entry.is_regular_file() || holds_weights(entry.path())) continue;
    std::filesystem::copy_file(entry.path(), to / entry.path().filename(),
                               std::filesystem::copy_options::overwrite_existing, error);
    if (error) {
      return fail(ErrorCode::kInternal, entry.path().string() + ": " + error.message());
    }
  }
  if (error) return fail(ErrorCode::kInternal, from.string() + ": " + error.message());
  return write_tensors(to / "model.safetensors", twin.merged(), {{"format", "pt"}});
}

}  // namespace coppice::train
