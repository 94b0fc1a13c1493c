// What:    a model file of any format behind one face: named tensors, config, tokenizer text.
// Owns:    the read-only maps of its files; tensor views point into them and live as long as it
// does. Threads: read-only after open. Fails:   kNotFound, kCorrupt (file, tensor or key, byte),
// kUnsupported (by name, with what works).
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"
#include "model/config.h"
#include "tensor/tensor.h"

namespace coppice::model {

class Checkpoint {
 public:
  // A Hugging Face directory (config.json, model.safetensors or an index of several) or a .gguf
  // file.
  static Expected<std::unique_ptr<Checkpoint>> open(const std::string& path);
  virtual ~Checkpoint() = default;

  virtual const ModelConfig& config() const = 0;
  // By Hugging Face name ("model.layers.0.self_attn.q_proj.weight"), whatever the file calls it and
  // with the rows in Hugging Face order. The shape must be `shape`; the element type is the file's.
  virtual Expected<TensorView> tensor(std::string_view name, const Shape& shape) const = 0;
  virtual bool has(std::string_view name) const = 0;
  virtual std::vector<std::string> names() const = 0;
  // tokenizer.json's text; from a GGUF file, an equivalent one made of its metadata.
  virtual Expected<std::string> tokenizer_json() const = 0;
};

}  // namespace coppice::model
