#include "model/hf_directory.h"

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "model/safetensors.h"
#include "model/shard_index.h"
#include "model/tensor_entry.h"

namespace coppice::model {
namespace {

constexpr size_t kMostConfigBytes = size_t{1} << 20;
constexpr size_t kMostIndexBytes = size_t{1} << 26;
constexpr size_t kMostTokenizerBytes = size_t{1} << 28;
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

struct Shard {
  MappedFile file;
  TensorTable tensors;
};

class HfDirectory : public Checkpoint {
 public:
  explicit HfDirectory(std::string path) : path_(std::move(path)) {}

  Status load() {
    TRY(const std::string text, read_file(at("config.json"), kMostConfigBytes));
    TRY(config_, read_config(text, at("config.json")));
    if (exists("generation_config.json")) {
      const std::string name = at("generation_config.json");
      TRY(const std::string generation, read_file(name, kMostConfigBytes));
      TRY_STATUS(apply_generation_config(generation, name, config_));
    }
    if (exists(kSingle)) return load_single();
    if (exists(kIndex)) return load_index();
    return fail(ErrorCode::kNotFound,
                path_ + ": has neither " + kSingle + " nor " + kIndex +
                    "; other weight formats (.bin, .pth) must be saved as safetensors first");
  }

  const ModelConfig& config() const override { return config_; }

  Expected<TensorData> tensor(std::string_view name, const Shape& shape) const override {
    TRY(const Place place, find(name, shape));
    return tensor_data(place.shard->file.bytes(), *place.entry);
  }

  Expected<Shape> shape(std::string_view name) const override {
    const auto home = homes_.find(name);
    if (home == homes_.end()) return no_tensor(name);
    return shards_[home->second].tensors.find(name)->second.shape;
  }

  Expected<TensorForm> check(std::string_view name, const Shape& shape) const override {
    TRY(const Place place, find(name, shape));
    return tensor_form(place.shard->file.bytes(), *place.entry);
  }

  bool has(std::string_view name) const override { return homes_.find(name) != homes_.end(); }

  std::vector<std::string> names() const override {
    std::vector<std::string> out;
    out.reserve(homes_.size());
    for (const auto& [name, shard] : homes_) out.push_back(name);
    return out;
  }

  const std::string& path() const override { return path_; }
  std::string tokenizer_path() const override { return at("tokenizer.json"); }
  Expected<std::string> tokenizer_json() const override {
    return read_file(tokenizer_path(), kMostTokenizerBytes);
  }

 private:
  struct Place {
    const Shard* shard;
    const TensorEntry* entry;
  };

  tl::unexpected<Error> no_tensor(std::string_view name) const {
    return fail(ErrorCode::kNotFound, path_ + ": has no tensor " + quote_name(name));
  }

  Expected<Place> find(std::string_view name, const Shape& shape) const {
    const auto home = homes_.find(name);
    if (home == homes_.end()) return no_tensor(name);
    const Shard& shard = shards_[home->second];
    TRY(const TensorEntry* entry, find_tensor(shard.tensors, name, shape, shard.file.path()));
    return Place{&shard, entry};
  }

  std::string at(const std::string& name) const {
    return (std::filesystem::path(path_) / name).string();
  }
  bool exists(const std::string& name) const {
    std::error_code ignored;
    return std::filesystem::exists(at(name), ignored);
  }

  Status load_shard(const std::string& name) {
    TRY(MappedFile file, MappedFile::open(at(name)));
    TRY(TensorTable tensors, read_safetensors(file.bytes(), file.path()));
    shards_.push_back({std::move(file), std::move(tensors)});
    return {};
  }

  Status load_single() {
    TRY_STATUS(load_shard(kSingle));
    for (const auto& [name, entry] : shards_.front().tensors) homes_.emplace(name, 0);
    return {};
  }

  Status load_index() {
    const std::string where = at(kIndex);
    TRY(const std::string text, read_file(where, kMostIndexBytes));
    TRY(const ShardIndex index, read_shard_index(text, where));
    std::map<std::string, size_t> opened;
    for (const auto& [name, shard] : index) {
      if (!opened.contains(shard)) {
        TRY_STATUS(load_shard(shard));
        opened.emplace(shard, shards_.size() - 1);
      }
      if (!shards_[opened[shard]].tensors.contains(name)) {
        return fail(ErrorCode::kCorrupt, where + ": weight_map places " + quote_name(name) +
                                             " in " + quote_name(shard) +
                                             ", which does not hold it");
      }
      homes_.emplace(name, opened[shard]);
    }
    return {};
  }

  std::string path_;
  ModelConfig config_;
  std::vector<Shard> shards_;
  std::map<std::string, size_t, std::less<>> homes_;  // tensor name to shard
};

}  // namespace

Expected<std::unique_ptr<Checkpoint>> open_hf_directory(const std::string& path) {
  auto directory = std::make_unique<HfDirectory>(path);
  TRY_STATUS(directory->load());
  return directory;
}

}  // namespace coppice::model
