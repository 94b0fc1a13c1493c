#include "model/gate_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/splitmix.h"
#include "model/base_hash.h"
#include "model/safetensors.h"
#include "tensor/widen.h"

namespace coppice::model {
namespace {

// Readers may map the file and use its numbers in place.
constexpr size_t kDataAlignment = 64;

Status refuse_others(const TensorTable& table, const std::vector<GateTensor>& known,
                     const std::string& path) {
  std::set<std::string_view> names;
  for (const GateTensor& tensor : known) names.insert(tensor.name);
  for (const auto& [name, entry] : table) {
    if (names.contains(name)) continue;
    return fail(ErrorCode::kCorrupt,
                path + ": has a tensor " + quote_name(name) + " that its header has no use for");
  }
  return {};
}

std::string little_endian(uint64_t number) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(number >> 8 * i);
  return out;
}

}  // namespace

std::vector<GateTensor> gate_tensors(const GateHeader& header) {
  const int64_t hidden = header.hidden_size, heads = header.num_key_value_heads;
  const int64_t width = header.width();
  std::vector<GateTensor> tensors;
  for (int32_t i = 0; i < header.num_hidden_layers; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    tensors.push_back({layer + "ws", {heads, hidden}});
    tensors.push_back({layer + "b", {heads}});
    if (width == 0) continue;
    for (const char* name : {"wq", "wk", "wv"}) tensors.push_back({layer + name, {width, hidden}});
    tensors.push_back({layer + "wo", {heads, width}});
  }
  return tensors;
}

Expected<GateFile> GateFile::open(const std::string& path) {
  TRY(MappedFile file, MappedFile::open(path));
  TRY(GateFile gate, read(file.bytes(), path));
  gate.file_ = std::move(file);
  return gate;
}

Expected<GateFile> GateFile::read(std::span<const uint8_t> bytes, const std::string& where) {
  GateFile gate;
  gate.bytes_ = bytes;
  gate.path_ = where;
  SafetensorsMetadata metadata;
  TRY(gate.tensors_, read_safetensors(bytes, where, &metadata));
  const auto header = metadata.find(kGateMetadataKey);
  if (header == metadata.end()) {
    return fail(
        ErrorCode::kUnsupported,
        where + ": is not a gate file: its __metadata__ has no \"" + kGateMetadataKey + "\"");
  }
  TRY(gate.header_, read_gate_header(header->second, where));
  TRY_STATUS(gate.check_tensors());
  return gate;
}

Status GateFile::check_tensors() const {
  const std::vector<GateTensor> wanted = gate_tensors(header_);
  TRY_STATUS(refuse_others(tensors_, wanted, path_));
  for (const GateTensor& one : wanted) {
    TRY(const TensorData data, tensor(one));
    const float* const begin = data.view.f32();
    for (int64_t i = 0; i < data.view.elements(); ++i) {
      if (std::isfinite(begin[i])) continue;
      return fail(ErrorCode::kCorrupt, path_ + ": tensor " + quote_name(one.name) + ": value " +
                                           std::to_string(i) + " is not a finite number");
    }
  }
  return {};
}

Expected<TensorData> GateFile::tensor(const GateTensor& tensor) const {
  TRY(const TensorEntry* entry, find_tensor(tensors_, tensor.name, tensor.shape, path_));
  if (entry->type != DType::kF32) {
    return fail(ErrorCode::kUnsupported, path_ + ": tensor " + quote_name(tensor.name) + " is " +
                                             std::string(dtype_name(entry->type)) +
                                             "; a gate's tensors are f32");
  }
  return tensor_data(bytes_, *entry);
}

uint64_t GateFile::hash() const {
  uint64_t state = bytes_.size();
  for (size_t at = 0; at < bytes_.size(); at += sizeof(uint64_t)) {
    uint64_t bits = 0;
    std::memcpy(&bits, bytes_.data() + at, std::min(sizeof bits, bytes_.size() - at));
    state = splitmix((state ^ bits) + kGoldenGamma);
  }
  return state;
}

Status write_gate_file(const std::string& path, const GateHeader& header, const GateFill& fill) {
  const std::string text = gate_header_json(header);
  TRY_STATUS(read_gate_header(text, path).map([](const GateHeader&) {}));
  const std::vector<GateTensor> tensors = gate_tensors(header);
  nlohmann::ordered_json table = {{"__metadata__", {{kGateMetadataKey, text}}}};
  int64_t end = 0;
  for (const GateTensor& tensor : tensors) {
    const int64_t begin = end;
    end += dtype_bytes(DType::kF32, tensor.shape.elements());
    std::vector<int64_t> extents;
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) extents.push_back(tensor.shape[axis]);
    table[tensor.name] = {{"dtype", "F32"}, {"shape", extents}, {"data_offsets", {begin, end}}};
  }
  std::string head = table.dump();
  const size_t beyond = (sizeof(uint64_t) + head.size()) % kDataAlignment;
  if (beyond != 0) head.append(kDataAlignment - beyond, ' ');
  return write_file(path, [&](const FileSink& sink) -> Status {
    TRY_STATUS(sink(little_endian(head.size())));
    TRY_STATUS(sink(head));
    std::vector<float> values;
    for (size_t i = 0; i < tensors.size(); ++i) {
      values.assign(static_cast<size_t>(tensors[i].shape.elements()), 0.0f);
      fill(i, values);
      TRY_STATUS(
          sink({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)}));
    }
    return {};
  });
}

Expected<std::string> base_hash(const Checkpoint& checkpoint) {
  BaseHash hash(checkpoint.config());
  for (const std::string& name : checkpoint.names()) {
    if (!hash.covers(name)) continue;
    TRY(const Shape shape, checkpoint.shape(name));
    TRY(const TensorData data, checkpoint.tensor(name, shape));
    const int64_t rows = shape.rank() == 2 ? shape[0] : 1;
    const int64_t cols = shape.elements() / std::max<int64_t>(rows, 1);
    const TensorView matrix = data.view.reshaped({rows, cols});
    hash.add(name, rows, cols, [&](int64_t row, float* out) { widen_row(matrix, row, out); });
  }
  return hash.hex();
}

}  // namespace coppice::model
