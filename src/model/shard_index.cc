#include "model/shard_index.h"

#include "model/strict_json.h"
#include "model/tensor_entry.h"

namespace coppice::model {
namespace {

bool is_shard_name(const nlohmann::json& file) {
  constexpr std::string_view kSuffix = ".safetensors";
  if (!file.is_string()) return false;
  const auto& name = file.get_ref<const std::string&>();
  const bool plain = name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  return plain && name.size() > kSuffix.size() && name.ends_with(kSuffix);
}

}  // namespace

Expected<ShardIndex> read_shard_index(std::string_view text, const std::string& where) {
  TRY(const JsonDocument index, parse_json(text, where));
  const auto map = index.root.find("weight_map");
  if (!index.root.is_object() || map == index.root.end() || !map->is_object()) {
    return fail(ErrorCode::kCorrupt, where + ": weight_map is not an object");
  }
  ShardIndex out;
  for (const auto& [tensor, file] : map->items()) {
    if (!is_shard_name(file)) {
      return fail(ErrorCode::kCorrupt,
                  where + ": weight_map " + quote_name(tensor) + " is " + json_excerpt(file) +
                      "; it must be a .safetensors file in the same directory");
    }
    out.emplace(tensor, file.get_ref<const std::string&>());
  }
  return out;
}

}  // namespace coppice::model
