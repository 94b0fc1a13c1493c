// What:    gate files and base hashes for the trainer.
// Owns:    the values it returns.
// Threads: any.
// Fails:   as model::GateFile::open, write_gate_file and base_hash.
//
// Without Torch, and without headers that name CHECK (checkpoint_reader.h says why).
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "coppice/error.h"
#include "model/gate_header.h"
#include "train/checkpoint_reader.h"

namespace coppice::train {

struct GateArchive {
  model::GateHeader header;
  std::map<std::string, std::vector<float>> tensors;  // "layers.0.ws", row-major
};

Expected<GateArchive> read_gate(const std::string& path);
// values(name): the tensor's elements, row-major; asked once for each of the header's tensors.
Status write_gate(const std::string& path, const model::GateHeader& header,
                  const std::function<std::vector<float>(const std::string& name)>& values);
// What GateHeader::base is for this model.
Expected<std::string> base_hash_of(const CheckpointReader& reader);

}  // namespace coppice::train
