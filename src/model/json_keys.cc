#include "model/json_keys.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "model/strict_json.h"

namespace coppice::model {

using nlohmann::json;

JsonKeys::JsonKeys(const json& object, std::string where)
    : object_(&object), where_(std::move(where)) {
  CHECK(object.is_object());
}

const json* JsonKeys::find(const char* key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

bool JsonKeys::is_null(const char* key) const {
  const auto found = object_->find(key);
  return found != object_->end() && found->is_null();
}

tl::unexpected<Error> JsonKeys::wrong(const char* key, const std::string& wanted) const {
  const json* value = find(key);
  return fail(ErrorCode::kCorrupt, where_ + ": " + key +
                                       (value ? " is " + json_excerpt(*value) : " is missing") +
                                       "; it must be " + wanted);
}

tl::unexpected<Error> JsonKeys::unsupported(const char* key, const std::string& works) const {
  const json* value = find(key);
  return fail(ErrorCode::kUnsupported, where_ + ": " + key + " is " +
                                           (value ? json_excerpt(*value) : "not given") +
                                           "; this build runs " + works);
}

Expected<int32_t> JsonKeys::integer(const char* key, int64_t least, int64_t most,
                                    std::optional<int32_t> otherwise) const {
  const json* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  const std::optional<int64_t> number = value ? exact_integer(*value) : std::nullopt;
  if (!number || *number < least || *number > most) {
    return wrong(key, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  }
  return static_cast<int32_t>(*number);
}

Expected<double> JsonKeys::number(const char* key, double least, double most,
                                  std::optional<double> otherwise) const {
  const json* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  const double number = value && value->is_number() ? value->get<double>() : NAN;
  if (!(number >= least && number <= most)) {
    return wrong(key,
                 "a number from " + json_excerpt(json(least)) + " to " + json_excerpt(json(most)));
  }
  return number;
}

Expected<bool> JsonKeys::flag(const char* key, std::optional<bool> otherwise) const {
  const json* value = find(key);
  if (value == nullptr && otherwise) return *otherwise;
  if (value == nullptr || !value->is_boolean()) return wrong(key, "true or false");
  return value->get<bool>();
}

Expected<std::string> JsonKeys::text(const char* key, const char* otherwise) const {
  const json* value = find(key);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is_string()) return wrong(key, "a string");
  return value->get<std::string>();
}

Expected<JsonKeys> JsonKeys::object(const char* key) const {
  const json* value = find(key);
  if (value == nullptr || !value->is_object()) return wrong(key, "an object");
  return JsonKeys(*value, where_ + ": " + key);
}

Status JsonKeys::refuse_others(std::initializer_list<std::string_view> known) const {
  for (const auto& [key, value] : object_->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    return fail(ErrorCode::kUnsupported,
                where_ + ": key " + json_excerpt(key) + " is not known to this build");
  }
  return {};
}

std::optional<int64_t> JsonKeys::exact_integer(const json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    return std::nullopt;
  }
  return value.get<int64_t>();
}

}  // namespace coppice::model
