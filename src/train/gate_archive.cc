#include "train/gate_archive.h"

#include <algorithm>

#include "base/check.h"
#include "model/gate_file.h"

namespace coppice::train {

Expected<GateArchive> read_gate(const std::string& path) {
  TRY(const auto file, model::GateFile::open(path));
  GateArchive archive{file.header(), {}};
  for (const model::GateTensor& tensor : model::gate_tensors(file.header())) {
    TRY(const auto data, file.tensor(tensor));
    archive.tensors[tensor.name].assign(data.view.f32(), data.view.f32() + data.view.elements());
  }
  return archive;
}

Status write_gate(const std::string& path, const model::GateHeader& header,
                  const std::function<std::vector<float>(const std::string& name)>& values) {
  const auto tensors = model::gate_tensors(header);
  return model::write_gate_file(path, header, [&](size_t i, std::span<float> out) {
    const std::vector<float> from = values(tensors[i].name);
    CHECK(from.size() == out.size());
    std::copy(from.begin(), from.end(), out.begin());
  });
}

Expected<std::string> base_hash_of(const CheckpointReader& reader) {
  return model::base_hash(reader.checkpoint());
}

}  // namespace coppice::train
