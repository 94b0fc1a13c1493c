#include "text/post_processor.h"

#include <utility>

namespace coppice::text {
namespace {

// A template may name a long list many times.
constexpr size_t kMaxAround = 1024;

// The ids a template's special token stands for.
Expected<std::vector<TokenId>> load_special(const JsonAt& config, const std::string& name,
                                            int32_t vocab_size) {
  TRY(const JsonAt specials, config.at("special_tokens"));
  TRY(const JsonAt special, specials.at(name.c_str()));
  TRY(const JsonAt ids, special.at("ids"));
  TRY_STATUS(ids.array());
  std::vector<TokenId> out;
  for (size_t i = 0; i < ids.value().size(); ++i) {
    TRY(const TokenId id, ids.item(i).id());
    if (id >= vocab_size) {
      return ids.item(i).corrupt("is " + std::to_string(id) + ", but the vocabulary has only " +
                                 std::to_string(vocab_size) + " tokens");
    }
    out.push_back(id);
  }
  return out;
}

Status load_piece(const JsonAt& piece, const JsonAt& config, int32_t vocab_size, bool* seen_text,
                  PostProcessor* out) {
  TRY_STATUS(piece.object());
  if (piece.has("Sequence")) {
    TRY(const std::string sequence, piece.get("Sequence").string("id"));
    if (sequence != "A" || *seen_text) {
      return piece.unsupported("repeats the text or adds another; the template must hold $A once");
    }
    *seen_text = true;
    return {};
  }
  TRY(const JsonAt special, piece.at("SpecialToken"));
  TRY(const std::string name, special.string("id"));
  TRY(const std::vector<TokenId> ids, load_special(config, name, vocab_size));
  std::vector<TokenId>& side = *seen_text ? out->after : out->before;
  side.insert(side.end(), ids.begin(), ids.end());
  if (side.size() > kMaxAround) {
    return piece.unsupported("puts more than " + std::to_string(kMaxAround) +
                             " tokens on one side of the text");
  }
  return {};
}

Expected<PostProcessor> load_template(const JsonAt& config, int32_t vocab_size) {
  TRY(const JsonAt single, config.at("single"));
  TRY_STATUS(single.array());
  PostProcessor out;
  bool seen_text = false;
  for (size_t i = 0; i < single.value().size(); ++i) {
    TRY_STATUS(load_piece(single.item(i), config, vocab_size, &seen_text, &out));
  }
  if (!seen_text) return single.unsupported("drops the text; the template must hold $A once");
  return out;
}

Expected<PostProcessor> load_sequence(const JsonAt& config, int32_t vocab_size) {
  TRY(const JsonAt list, config.at("processors"));
  TRY_STATUS(list.array());
  PostProcessor out;
  for (size_t i = 0; i < list.value().size(); ++i) {
    TRY(PostProcessor part, PostProcessor::load(list.item(i), vocab_size));
    if (part.before.empty() && part.after.empty()) continue;
    // The reference loses the text here.
    if (!out.before.empty() || !out.after.empty()) {
      return list.item(i).unsupported("is a second template; what works: one");
    }
    out = std::move(part);
  }
  return out;
}

}  // namespace

Expected<PostProcessor> PostProcessor::load(const JsonAt& config, int32_t vocab_size) {
  if (config.is_null()) return PostProcessor{};
  TRY(const std::string type, config.string("type"));
  if (type == "ByteLevel") return PostProcessor{};
  if (type == "TemplateProcessing") return load_template(config, vocab_size);
  if (type == "Sequence") return load_sequence(config, vocab_size);
  return config.unsupported("has the type " + in_quotes(type) +
                            "; what works: null, ByteLevel, TemplateProcessing, Sequence");
}

}  // namespace coppice::text
