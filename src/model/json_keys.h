// What:    one JSON object of a file, its values taken by key with bounds. null counts as missing.
// Owns:    nothing; the tree must outlive it.
// Threads: const use from any thread.
// Fails:   kCorrupt, kUnsupported: one line with the file, the key, what it is and what it must be.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "coppice/error.h"

namespace coppice::model {

class JsonKeys {
 public:
  // where: the file, and the object's place in it.
  JsonKeys(const nlohmann::json& object, std::string where);

  const std::string& where() const { return where_; }
  const nlohmann::json* find(const char* key) const;  // null: missing
  bool is_null(const char* key) const;

  // The error for a value that is wrong in itself, and for one that this build does not run.
  tl::unexpected<Error> wrong(const char* key, const std::string& wanted) const;
  tl::unexpected<Error> unsupported(const char* key, const std::string& works) const;

  // Without `otherwise` a missing value is wrong.
  Expected<int32_t> integer(const char* key, int64_t least, int64_t most,
                            std::optional<int32_t> otherwise = {}) const;
  Expected<double> number(const char* key, double least, double most,
                          std::optional<double> otherwise = {}) const;
  Expected<bool> flag(const char* key, std::optional<bool> otherwise = {}) const;
  Expected<std::string> text(const char* key, const char* otherwise) const;
  // The object under `key`.
  Expected<JsonKeys> object(const char* key) const;
  // Refuses a key that is none of these.
  Status refuse_others(std::initializer_list<std::string_view> known) const;

  // A number that is an integer and no more than 2^63 - 1.
  static std::optional<int64_t> exact_integer(const nlohmann::json& value);

 private:
  const nlohmann::json* object_;
  std::string where_;
};

}  // namespace coppice::model
