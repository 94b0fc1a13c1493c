#include "attention_spec.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

#include "arguments.h"
#include "base/splitmix.h"

namespace coppice::tools {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kMostNodes = 32768, kMostTokens = 1 << 24;

Error bad_flag(const std::string& flag, const std::string& accepts) {
  return {ErrorCode::kInvalidArgument, flag + " accepts " + accepts};
}

// "1,4,64" to numbers from 1 up, none so large that a product of two is no longer one; empty when
// it is not that.
std::vector<int32_t> numbers(std::string_view text) {
  std::vector<int32_t> out;
  for (const std::string& item : split_list(text)) {
    const char* last = item.data() + item.size();
    const auto [end, error] = std::from_chars(item.data(), last, out.emplace_back());
    if (error != std::errc() || end != last || out.back() < 1 || out.back() > kMostTokens)
      return {};
  }
  return out;
}

Status read_tree(const std::string& tree, AttentionShape& shape) {
  const size_t slash = tree.find('/');
  shape.nodes = numbers(std::string_view(tree).substr(0, slash));
  if (slash != std::string::npos) shape.tokens = numbers(std::string_view(tree).substr(slash + 1));
  const bool grows = std::is_sorted(shape.nodes.begin(), shape.nodes.end());
  if (shape.nodes.empty() || shape.nodes.size() != shape.tokens.size() || !grows) {
    return fail(bad_flag("--tree",
                         "total nodes per level / tokens per node, as 1,4,64/1024,256,256, with no "
                         "level smaller than the one above"));
  }
  return {};
}

Status read_flat(const AttentionSpec& spec, AttentionShape& shape) {
  if (spec.shared + spec.own < 1) {
    return fail(bad_flag("--shared", "1 or more where --private is 0"));
  }
  if (spec.shared > 0) {
    shape.nodes.push_back(1);
    shape.tokens.push_back(spec.shared);
  }
  shape.nodes.push_back(spec.batch);
  shape.tokens.push_back(spec.own);
  return {};
}

// Prefixes of 256 to 4096 tokens, sequences of 16 to 1024 of their own. The i-th prefix has 1/i of
// the first one's sequences, and every prefix at least one.
void draw_ragged(const AttentionSpec& spec, AttentionShape& shape) {
  uint64_t state = static_cast<uint64_t>(spec.zipf_prefixes);
  const auto draw = [&](int32_t least, int32_t most) {
    const uint64_t bits = splitmix(state += kGoldenGamma);
    return least + static_cast<int32_t>(bits % static_cast<uint64_t>(most - least + 1));
  };
  double all = 0;
  for (int32_t i = 1; i <= spec.zipf_prefixes; ++i) all += 1.0 / i;
  double before = 0;
  for (int32_t i = 1; i <= spec.zipf_prefixes; ++i) {
    shape.prefixes.push_back(draw(256, 4096));
    before += 1.0 / i;
    const auto end = std::max(static_cast<int32_t>(std::lround(spec.batch * before / all)), i);
    while (static_cast<int32_t>(shape.ragged.size()) < end) {
      shape.ragged.push_back({i - 1, draw(16, 1024)});
    }
  }
}

}  // namespace

Expected<AttentionShape> shape_of(const AttentionSpec& spec) {
  AttentionShape shape;
  shape.heads = spec.heads;
  shape.kv_heads = spec.kv_heads;
  shape.head_dim = spec.head_dim;
  if (spec.heads % spec.kv_heads != 0) {
    return fail(bad_flag("--heads", "a multiple of --kv-heads"));
  }
  if (spec.kv_type != "bf16" && spec.kv_type != "f32" && spec.kv_type != "int8") {
    return fail(bad_flag("--kv-type", "bf16, f32 or int8"));
  }
  shape.kv_type = spec.kv_type == "int8" ? DType::kI8 : *dtype_from_name(spec.kv_type);
  if (spec.zipf_prefixes > 0) {
    draw_ragged(spec, shape);
  } else if (!spec.tree.empty()) {
    TRY_STATUS(read_tree(spec.tree, shape));
  } else {
    TRY_STATUS(read_flat(spec, shape));
  }
  if (shape.node_count() > kMostNodes || shape.unique_tokens() > kMostTokens) {
    return fail(bad_flag(
        !spec.tree.empty() ? "--tree" : "--batch times --private, and --shared once,",
        "at most 32768 nodes and 16777216 tokens in all; these are " +
            std::to_string(shape.node_count()) + " and " + std::to_string(shape.unique_tokens())));
  }
  return shape;
}

void put_parameters(ordered_json& json, const AttentionSpec& spec, int threads,
                    std::string_view isa) {
  const bool flat = spec.tree.empty() && spec.zipf_prefixes == 0;
  const auto if_flat = [&](int32_t value) { return flat ? ordered_json(value) : ordered_json(); };
  json["heads"] = spec.heads;
  json["kv_heads"] = spec.kv_heads;
  json["head_dim"] = spec.head_dim;
  json["batch"] = if_flat(spec.batch);
  json["shared"] = if_flat(spec.shared);
  json["private"] = if_flat(spec.own);
  json["tree"] = spec.tree.empty() ? ordered_json() : ordered_json(spec.tree);
  json["kv_type"] = spec.kv_type;
  json["threads"] = threads;
  json["isa"] = isa;
}

}  // namespace coppice::tools
