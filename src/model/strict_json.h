// What:    JSON text from a model file to a tree, with duplicate keys and deep nesting refused.
// Owns:    JsonDocument owns its tree.
// Threads: pure functions.
// Fails:   kCorrupt naming the file and the byte.
#pragma once

#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "coppice/error.h"

namespace coppice::model {

// A tree in a box: nlohmann::json converts from anything, which Expected must not meet bare.
struct JsonDocument {
  nlohmann::json root;
};

inline constexpr int kJsonDepth = 16;

// `first_byte`: where in the file the text begins, so that errors name the file's byte.
Expected<JsonDocument> parse_json(std::string_view text, const std::string& where,
                                  int64_t first_byte = 0, int max_depth = kJsonDepth);

// For messages: the value as printable ASCII, cut short when long; strings keep their quotes.
std::string json_excerpt(const nlohmann::json& value);

}  // namespace coppice::model
