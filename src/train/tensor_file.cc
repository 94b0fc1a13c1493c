#include "train/tensor_file.h"

#include <algorithm>
#include <cstring>

#include <nlohmann/json.hpp>

#include "base/file.h"

namespace coppice::train {
namespace {

using nlohmann::ordered_json;

struct DtypeName {
  torch::Dtype dtype;
  const char* name;
};
constexpr DtypeName kDtypes[] = {
    {torch::kFloat32, "F32"}, {torch::kBFloat16, "BF16"}, {torch::kInt64, "I64"}};

const DtypeName* find_dtype(torch::Dtype dtype) {
  for (const DtypeName& d : kDtypes) {
    if (d.dtype == dtype) return &d;
  }
  return nullptr;
}

const DtypeName* find_dtype(const std::string& name) {
  for (const DtypeName& d : kDtypes) {
    if (d.name == name) return &d;
  }
  return nullptr;
}

bool is_index(const ordered_json& value) {
  return value.is_number_integer() && (value.is_number_unsigned() || value.get<int64_t>() >= 0) &&
         value.get<uint64_t>() <= (uint64_t{1} << 40);
}

bool is_index_list(const ordered_json& entry, const char* key, size_t limit) {
  return entry.is_object() && entry.contains(key) && entry[key].is_array() &&
         entry[key].size() <= limit && std::all_of(entry[key].begin(), entry[key].end(), is_index);
}

// One header entry to a tensor over a copy of its bytes; nullopt-like: undefined when malformed.
torch::Tensor read_one(const ordered_json& entry, std::string_view data) {
  if (!is_index_list(entry, "shape", 8) || !is_index_list(entry, "data_offsets", 2)) return {};
  const auto& offsets = entry["data_offsets"];
  const auto dtype_at = entry.find("dtype");
  const DtypeName* dtype = dtype_at != entry.end() && dtype_at->is_string()
                               ? find_dtype(dtype_at->get<std::string>())
                               : nullptr;
  if (dtype == nullptr || offsets.size() != 2) return {};
  const auto shape = entry["shape"].get<std::vector<int64_t>>();
  uint64_t bytes = torch::elementSize(dtype->dtype);
  for (int64_t n : shape) {
    if (n != 0 && bytes > data.size() / static_cast<uint64_t>(n)) return {};
    bytes *= static_cast<uint64_t>(n);
  }
  const auto begin = offsets[0].get<uint64_t>(), end = offsets[1].get<uint64_t>();
  if (begin > end || end > data.size() || end - begin != bytes) return {};
  torch::Tensor tensor = torch::empty(shape, dtype->dtype);
  if (bytes > 0) std::memcpy(tensor.data_ptr(), data.data() + begin, bytes);
  return tensor;
}

}  // namespace

Status write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                     const std::map<std::string, std::string>& metadata) {
  ordered_json header = ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string data;
  for (const auto& [name, tensor] : tensors) {
    const torch::Tensor flat = tensor.detach().contiguous();
    const DtypeName* dtype = find_dtype(flat.scalar_type());
    if (dtype == nullptr) return fail(ErrorCode::kUnsupported, name + ": type cannot be written");
    const size_t begin = data.size();
    data.append(static_cast<const char*>(flat.data_ptr()), flat.nbytes());
    header[name] = {{"dtype", dtype->name},
                    {"shape", flat.sizes().vec()},
                    {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t size = text.size();
  std::string out(reinterpret_cast<const char*>(&size), sizeof size);
  return write_file(path.string(), out + text + data);
}

Expected<TensorFile> read_tensors(const std::filesystem::path& path) {
  TRY(const std::string bytes, read_file(path.string()));
  uint64_t size = 0;
  if (bytes.size() >= sizeof size) std::memcpy(&size, bytes.data(), sizeof size);
  if (bytes.size() < sizeof size || size > bytes.size() - sizeof size) {
    return fail(ErrorCode::kCorrupt,
                path.string() + ": the header is cut off at byte " + std::to_string(bytes.size()));
  }
  const std::string_view view(bytes);
  const auto header = ordered_json::parse(view.substr(8, size), nullptr, false);
  if (!header.is_object()) return fail(ErrorCode::kCorrupt, path.string() + ": bad JSON header");
  TensorFile file;
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      for (const auto& [key, value] : entry.items()) {
        if (value.is_string()) file.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    torch::Tensor tensor = read_one(entry, view.substr(8 + size));
    if (!tensor.defined()) {
      return fail(ErrorCode::kCorrupt,
                  path.string() + ": " + name + ": dtype, shape and data_offsets do not agree");
    }
    file.tensors[name] = std::move(tensor);
  }
  return file;
}

Status copy_tensors(const TensorFile& file, const std::string& prefix, const NamedTensors& into,
                    const std::string& file_name) {
  torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : into) {
    const auto found = file.tensors.find(prefix + name);
    if (found == file.tensors.end()) {
      return fail(ErrorCode::kCorrupt, file_name + ": " + prefix + name + ": missing");
    }
    if (found->second.sizes() != tensor.sizes()) {
      return fail(ErrorCode::kCorrupt, file_name + ": " + prefix + name + ": wrong shape");
    }
    torch::Tensor target = tensor;
    target.copy_(found->second);
  }
  return {};
}

}  // namespace coppice::train
