#include "model/gguf_checkpoint.h"

#include <algorithm>
#include <utility>

#include "base/file.h"
#include "model/gguf_names.h"
#include "model/gguf_tokenizer.h"
#include "model/tensor_entry.h"

namespace coppice::model {
namespace {

class GgufCheckpoint : public Checkpoint {
 public:
  GgufCheckpoint(MappedFile map, GgufFile file, ModelConfig config)
      : map_(std::move(map)), file_(std::move(file)), config_(std::move(config)) {}

  const ModelConfig& config() const override { return config_; }

  Expected<TensorData> tensor(std::string_view name, const Shape& shape) const override {
    TRY(const TensorEntry* entry, find(name, shape));
    const int64_t heads = interleaved_heads(config_, name);
    if (heads == 0) return tensor_data(file_.bytes(), *entry);
    return restored(*entry, heads);
  }

  Expected<Shape> shape(std::string_view name) const override {
    const auto entry = file_.tensors().find(hf_to_gguf(name));
    if (entry == file_.tensors().end()) {
      return fail(ErrorCode::kNotFound, file_.where() + ": has no tensor " + quote_name(name));
    }
    return entry->second.shape;
  }

  Expected<TensorForm> check(std::string_view name, const Shape& shape) const override {
    TRY(const TensorEntry* entry, find(name, shape));
    if (interleaved_heads(config_, name) == 0) return tensor_form(file_.bytes(), *entry);
    return TensorForm{entry->type, entry->end - entry->begin};
  }

  bool has(std::string_view name) const override {
    return file_.tensors().contains(hf_to_gguf(name));
  }

  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    out.reserve(file_.tensors().size());
    for (const auto& [name, entry] : file_.tensors()) out.push_back(gguf_to_hf(name));
    std::sort(out.begin(), out.end());
    return out;
  }

  const std::string& path() const override { return file_.where(); }
  std::string tokenizer_path() const override { return file_.where(); }
  Expected<std::string> tokenizer_json() const override {
    return gguf_tokenizer_json(file_, config_.vocab_size);
  }

 private:
  Expected<const TensorEntry*> find(std::string_view name, const Shape& shape) const {
    const std::string own = hf_to_gguf(name);
    TRY(const TensorEntry* entry, find_tensor(file_.tensors(), own, shape, file_.where()));
    const int64_t heads = interleaved_heads(config_, name);
    const int64_t rows = entry->shape.rank() > 0 ? entry->shape[0] : 0;
    if (heads != 0 && rows != heads * config_.head_dim) {
      return fail(ErrorCode::kCorrupt, file_.where() + ": tensor " + quote_name(own) +
                                           " has the shape " + entry->shape.text() +
                                           ", but its heads need " +
                                           std::to_string(heads * config_.head_dim) + " rows");
    }
    return entry;
  }

  Expected<TensorData> restored(const TensorEntry& entry, int64_t heads) const {
    const int64_t bytes = entry.end - entry.begin;
    TRY(Buffer copy, Buffer::allocate(bytes));
    const auto* from = reinterpret_cast<const std::byte*>(file_.bytes().data()) + entry.begin;
    restore_rotary_rows(from, copy.data(), heads, config_.head_dim, bytes / entry.shape[0]);
    const TensorView view = copy.view(entry.type, entry.shape);
    return TensorData{view, std::move(copy)};
  }

  MappedFile map_;
  GgufFile file_;
  ModelConfig config_;
};

// A tensor under its Hugging Face name would hide, or be hidden by, the one under GGUF's.
Status check_names(const GgufFile& file) {
  for (const auto& [name, entry] : file.tensors()) {
    const std::string own = hf_to_gguf(name);
    if (own == name) continue;
    return fail(ErrorCode::kUnsupported, file.where() + ": has a tensor " + quote_name(name) +
                                             ", which GGUF calls " + quote_name(own));
  }
  return {};
}

// bytes: the map's, or the caller's.
Expected<std::unique_ptr<Checkpoint>> open_bytes(MappedFile map, std::span<const uint8_t> bytes,
                                                 const std::string& where) {
  TRY(GgufFile file, GgufFile::read(bytes, where));
  TRY_STATUS(check_names(file));
  TRY(ModelConfig config, read_gguf_config(file));
  return std::make_unique<GgufCheckpoint>(std::move(map), std::move(file), std::move(config));
}

}  // namespace

Expected<std::unique_ptr<Checkpoint>> open_gguf_bytes(std::span<const uint8_t> bytes,
                                                      const std::string& where) {
  return open_bytes(MappedFile(), bytes, where);
}

Expected<std::unique_ptr<Checkpoint>> open_gguf(const std::string& path) {
  TRY(MappedFile map, MappedFile::open(path));
  const auto bytes = map.bytes();
  return open_bytes(std::move(map), bytes, path);
}

}  // namespace coppice::model
