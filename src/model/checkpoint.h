// What:    a model file of any format behind one face: named tensors, config, tokenizer text.
// Owns:    the read-only maps of its files; tensor views into them live as long as it does.
// Threads: const use from any thread.
// Fails:   kNotFound, kCorrupt (file, tensor or key, byte), kUnsupported (by name, what works).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"
#include "model/config.h"
#include "tensor/tensor.h"

namespace coppice::model {

// A tensor's elements, read-only and aligned for their type: in the file's map, or in a copy where
// the bytes there are misaligned or permuted.
struct TensorData {
  TensorView view;
  Buffer copy;
};

// How tensor() would give a tensor.
struct TensorForm {
  DType type = DType::kF32;
  int64_t copy_bytes = 0;  // 0: a view into the map
};

class Checkpoint {
 public:
  // A Hugging Face directory (config.json, model.safetensors or an index of several), a .gguf file,
  // or "random:SHAPE" (random_checkpoint.h).
  static Expected<std::unique_ptr<Checkpoint>> open(const std::string& path);
  virtual ~Checkpoint() = default;

  virtual const ModelConfig& config() const = 0;
  // By Hugging Face name ("model.layers.0.self_attn.q_proj.weight"), whatever the file calls it and
  // with the rows in Hugging Face order. The shape must be `shape`; the element type is the file's
  // (F32, F16, BF16 or a quantised one).
  virtual Expected<TensorData> tensor(std::string_view name, const Shape& shape) const = 0;
  virtual Expected<Shape> shape(std::string_view name) const = 0;
  // What tensor() would return, or its error; nothing is read or copied.
  virtual Expected<TensorForm> check(std::string_view name, const Shape& shape) const = 0;
  virtual bool has(std::string_view name) const = 0;
  // Sorted, by Hugging Face name.
  virtual std::vector<std::string> names() const = 0;
  // The directory or file, and the file that tokenizer_json() is read from; for errors.
  virtual const std::string& path() const = 0;
  virtual std::string tokenizer_path() const = 0;
  // tokenizer.json's text; from a GGUF file, an equivalent one made of its metadata.
  virtual Expected<std::string> tokenizer_json() const = 0;
};

}  // namespace coppice::model
