// What:    a checkpoint as the engine reads it (directory, shards, GGUF; f32, f16, bf16 and
// quantised
//          types), its tensors widened to f32 for the twin.
// Owns:    the checkpoint's maps.
// Threads: one.
// Fails:   as model::Checkpoint::open and Model::check: file and field, tensor or key.
//
// Without Torch, and without headers that name CHECK: Torch's logging macros share names with ours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "model/config.h"

namespace coppice::model {
class Checkpoint;
}

namespace coppice::train {

class CheckpointReader {
 public:
  static Expected<CheckpointReader> open(const std::string& path);
  CheckpointReader(CheckpointReader&&) noexcept;
  ~CheckpointReader();

  const model::ModelConfig& config() const;
  const model::Checkpoint& checkpoint() const { return *checkpoint_; }
  // The tensor's elements, row-major, to out; `shape` is what it must have.
  Status read(const std::string& name, const std::vector<int64_t>& shape, float* out) const;
  // tokenizer.json's text, and where it stands, for errors.
  Expected<std::string> tokenizer_json() const;
  std::string tokenizer_path() const;

 private:
  explicit CheckpointReader(std::unique_ptr<model::Checkpoint> checkpoint);
  std::unique_ptr<model::Checkpoint> checkpoint_;
};

}  // namespace coppice::train
