// What:    safetensors files of torch tensors (F32, BF16, I64), whole files in memory.
// Owns:    the tensors it returns.
// Threads: none shared.
// Fails:   kCorrupt (file, tensor, what) or the file system's error.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <torch/types.h>

#include "coppice/error.h"

namespace coppice::train {

using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

struct TensorFile {
  std::map<std::string, torch::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

// Written beside the target and renamed: a crash leaves the old file whole.
Status write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                     const std::map<std::string, std::string>& metadata);
Expected<TensorFile> read_tensors(const std::filesystem::path& path);
// Copies file.tensors[prefix + name] into each tensor, converting the type; shapes must agree.
Status copy_tensors(const TensorFile& file, const std::string& prefix, const NamedTensors& into,
                    const std::string& file_name);

}  // namespace coppice::train
