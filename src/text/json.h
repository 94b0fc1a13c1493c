// What:    JSON from outside: parsed under limits, and read field by field with named errors.
// Owns:    parse_json's result owns the tree; a JsonAt only points into it.
// Threads: const use from any thread.
// Fails:   kCorrupt naming the file, the key and (for syntax) the byte.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "coppice/error.h"

namespace coppice::text {

using Json = nlohmann::json;

// Nested at most 64 deep, no key twice in one object. where: the file's name, for errors.
Expected<Json> parse_json(std::string_view text, const std::string& where);

// A text from outside, made fit for an error message: quoted, escaped, cut at 60 bytes.
std::string in_quotes(std::string_view text);

// A value and the way to it ("tokenizer.json: model.vocab").
class JsonAt {
 public:
  JsonAt(const Json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const Json& value() const { return *value_; }
  const std::string& path() const { return path_; }
  bool is_null() const { return value_->is_null(); }

  // Present and not null. The value must be an object (see `object`).
  bool has(const char* key) const;
  // The member `key`, which must be there.
  Expected<JsonAt> at(const char* key) const;
  // The member `key`, or null where it is absent.
  JsonAt get(const char* key) const;
  JsonAt item(size_t index) const;

  Status object() const;
  Status array() const;
  Expected<std::string> string() const;
  Expected<bool> boolean() const;
  // A whole number from 0 to 2^31 - 1.
  Expected<int32_t> id() const;

  Expected<std::string> string(const char* key) const;
  Expected<bool> boolean(const char* key) const;
  // False where the member is absent or null.
  Expected<bool> flag(const char* key) const;

  // "<path> <what>", as an error of that kind.
  tl::unexpected<Error> corrupt(const std::string& what) const;
  tl::unexpected<Error> unsupported(const std::string& what) const;

 private:
  Status expect(bool right, const char* wanted) const;

  const Json* value_;
  std::string path_;
};

}  // namespace coppice::text
