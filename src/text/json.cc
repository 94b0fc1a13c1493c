#include "text/json.h"

#include <cstring>
#include <limits>
#include <vector>

namespace coppice::text {
namespace {

constexpr size_t kMaxDepth = 64;

// Builds the tree from parse events, so that depth and repeated keys are seen as they come.
class TreeBuilder : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    const auto [slot, fresh] = open_.back()->get_ref<Json::object_t&>().emplace(name, nullptr);
    if (!fresh) return stop(std::string("has the key ") + in_quotes(name) + " twice in one object");
    member_ = &slot->second;
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    constexpr int kNumberTooLarge = 406;
    const char* what = "is not JSON at byte ";
    if (error.id == kNumberTooLarge) what = "holds a number that is too large, ending at byte ";
    if (std::strstr(error.what(), "ill-formed UTF-8")) what = "is not UTF-8 at byte ";
    return stop(what + std::to_string(position));
  }

  Json tree;
  std::string problem;

 private:
  Json* place(Json value) {
    if (open_.empty()) {
      tree = std::move(value);
      return &tree;
    }
    if (open_.back()->is_array()) {
      auto& items = open_.back()->get_ref<Json::array_t&>();
      items.push_back(std::move(value));
      return &items.back();
    }
    *member_ = std::move(value);
    return member_;
  }

  template <class T>
  bool add(T&& value) {
    place(Json(std::forward<T>(value)));
    return true;
  }

  bool open(Json container) {
    if (open_.size() == kMaxDepth)
      return stop(std::string("is nested more than ") + std::to_string(kMaxDepth) + " deep");
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  bool stop(std::string why) {
    problem = std::move(why);
    return false;
  }

  std::vector<Json*> open_;  // the containers around the next value; stable while they are open
  Json* member_ = nullptr;
};

}  // namespace

Expected<Json> parse_json(std::string_view text, const std::string& where) {
  TreeBuilder builder;
  if (!Json::sax_parse(text, &builder)) {
    return fail(ErrorCode::kCorrupt, where + ": " + builder.problem);
  }
  return std::move(builder.tree);
}

std::string in_quotes(std::string_view text) {
  constexpr size_t kLimit = 60;
  const std::string cut(text.substr(0, kLimit));
  const std::string escaped = Json(cut).dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() > kLimit ? escaped + "..." : escaped;
}

bool JsonAt::has(const char* key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

Expected<JsonAt> JsonAt::at(const char* key) const {
  TRY_STATUS(object());
  const auto found = value_->find(key);
  if (found == value_->end()) return corrupt(std::string("lacks the key \"") + key + "\"");
  return get(key);
}

JsonAt JsonAt::get(const char* key) const {
  static const Json kNull;
  const auto found = value_->find(key);
  const bool top = !path_.empty() && path_.back() == ':';
  return JsonAt(found == value_->end() ? kNull : *found, path_ + (top ? " " : ".") + key);
}

JsonAt JsonAt::item(size_t index) const {
  return JsonAt((*value_)[index], path_ + "[" + std::to_string(index) + "]");
}

Status JsonAt::object() const { return expect(value_->is_object(), "an object"); }
Status JsonAt::array() const { return expect(value_->is_array(), "an array"); }

Expected<std::string> JsonAt::string() const {
  TRY_STATUS(expect(value_->is_string(), "a string"));
  return value_->get_ref<const std::string&>();
}

Expected<bool> JsonAt::boolean() const {
  TRY_STATUS(expect(value_->is_boolean(), "true or false"));
  return value_->get<bool>();
}

Expected<int32_t> JsonAt::id() const {
  const bool whole = value_->is_number_unsigned() &&
                     value_->get<uint64_t>() <= uint64_t{std::numeric_limits<int32_t>::max()};
  TRY_STATUS(expect(whole, "a whole number from 0 to 2147483647"));
  return static_cast<int32_t>(value_->get<uint64_t>());
}

Expected<std::string> JsonAt::string(const char* key) const {
  TRY(const JsonAt member, at(key));
  return member.string();
}

Expected<bool> JsonAt::boolean(const char* key) const {
  TRY(const JsonAt member, at(key));
  return member.boolean();
}

Expected<bool> JsonAt::flag(const char* key) const {
  if (!has(key)) return false;
  return get(key).boolean();
}

tl::unexpected<Error> JsonAt::corrupt(const std::string& what) const {
  return fail(ErrorCode::kCorrupt, path_ + " " + what);
}

tl::unexpected<Error> JsonAt::unsupported(const std::string& what) const {
  return fail(ErrorCode::kUnsupported, path_ + " " + what);
}

Status JsonAt::expect(bool right, const char* wanted) const {
  if (right) return {};
  return corrupt(std::string("must be ") + wanted + ", not " + value_->type_name() +
                 (value_->is_number() ? std::string(" ") + value_->dump() : ""));
}

}  // namespace coppice::text
