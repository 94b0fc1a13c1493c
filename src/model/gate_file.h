// What:    gate files: a safetensors file whose metadata has the gate's header, and the hash of the
//          base model that a gate is for.
// Owns:    GateFile owns the map of the file it opened.
// Threads: const use from any thread.
// Fails:   open, read: kNotFound, kCorrupt, kUnsupported naming file and key or tensor. write: the
//          header's error, or the file system's.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/file.h"
#include "model/checkpoint.h"
#include "model/gate_header.h"
#include "model/tensor_entry.h"
#include "tensor/tensor.h"

namespace coppice::model {

// The tensors that a gate file with this header has, all f32: for each layer i
//   layers.{i}.ws [Hkv, E]   layers.{i}.b [Hkv]                             every kind
//   layers.{i}.wq, .wk, .wv [r', E]   layers.{i}.wo [Hkv, r']               all but point
struct GateTensor {
  std::string name;
  Shape shape;
};
std::vector<GateTensor> gate_tensors(const GateHeader& header);

// Its tensors are those of its header and no others, in shape, f32 and finite.
class GateFile {
 public:
  static Expected<GateFile> open(const std::string& path);
  // bytes must outlive it. `where` names them in errors.
  static Expected<GateFile> read(std::span<const uint8_t> bytes, const std::string& where);

  const GateHeader& header() const { return header_; }
  const std::string& path() const { return path_; }
  // One of gate_tensors(header()).
  Expected<TensorData> tensor(const GateTensor& tensor) const;
  // Of all its bytes: what is computed under two gates is shared where these are equal.
  uint64_t hash() const;

 private:
  Status check_tensors() const;

  MappedFile file_;  // empty where the bytes are another's
  std::span<const uint8_t> bytes_;
  std::string path_;
  GateHeader header_;
  TensorTable tensors_;
};

// fill(i, values) makes the i-th of gate_tensors(header), in order.
using GateFill = std::function<void(size_t tensor, std::span<float> values)>;
Status write_gate_file(const std::string& path, const GateHeader& header, const GateFill& fill);

// What GateHeader::base is for this model (base_hash.h).
Expected<std::string> base_hash(const Checkpoint& checkpoint);

}  // namespace coppice::model
