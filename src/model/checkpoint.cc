#include "model/checkpoint.h"

#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "model/hf_directory.h"

namespace coppice::model {

Expected<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_hf_directory(path);
  TRY(const MappedFile file, MappedFile::open(path));
  if (std::string_view(path).ends_with(".safetensors")) {
    return fail(ErrorCode::kUnsupported,
                path + ": holds weights alone; give the directory that has its config.json");
  }
  return fail(ErrorCode::kUnsupported, path +
                                           ": is neither a Hugging Face directory nor a GGUF "
                                           "file");
}

}  // namespace coppice::model
