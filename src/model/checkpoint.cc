#include "model/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "base/file.h"
#include "model/gguf_checkpoint.h"
#include "model/hf_directory.h"
#include "model/random_checkpoint.h"

namespace coppice::model {
namespace {

bool begins_with(const MappedFile& file, std::string_view magic) {
  return file.bytes().size() >= magic.size() &&
         std::memcmp(file.bytes().data(), magic.data(), magic.size()) == 0;
}

}  // namespace

Expected<std::unique_ptr<Checkpoint>> Checkpoint::open(const std::string& path) {
  if (path.starts_with(kRandomPrefix)) return open_random(path.substr(kRandomPrefix.size()));
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return open_hf_directory(path);
  TRY(const MappedFile file, MappedFile::open(path));
  const std::string_view name(path);
  if (begins_with(file, "GGUF") || name.ends_with(".gguf")) return open_gguf(path);
  if (name.ends_with(".safetensors")) {
    return fail(ErrorCode::kUnsupported,
                path + ": holds weights alone; give the directory that has its config.json");
  }
  return fail(ErrorCode::kUnsupported,
              path + ": is neither a Hugging Face directory nor a GGUF file");
}

}  // namespace coppice::model
