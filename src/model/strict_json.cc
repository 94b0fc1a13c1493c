#include "model/strict_json.h"

#include <utility>
#include <vector>

namespace coppice::model {
namespace {

using nlohmann::json;

// Builds the tree while checking it; every method returns false to stop the parser.
class TreeBuilder : public nlohmann::json_sax<json> {
 public:
  TreeBuilder(std::string_view text, int max_depth) : text_(text), max_depth_(max_depth) {}

  json take_root() { return std::move(root_); }
  const std::string& problem() const { return problem_; }
  int64_t problem_byte() const { return problem_byte_; }

  bool null() override { return place(nullptr); }
  bool boolean(bool value) override { return place(value); }
  bool number_integer(number_integer_t value) override { return place(value); }
  bool number_unsigned(number_unsigned_t value) override { return place(value); }
  bool number_float(number_float_t value, const string_t&) override { return place(value); }
  bool string(string_t& value) override { return place(std::move(value)); }
  bool binary(binary_t&) override { return refuse("binary data"); }

  bool start_object(std::size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    auto [slot, added] = open_.back()->get_ref<json::object_t&>().try_emplace(name, nullptr);
    if (!added) return refuse("key " + json_excerpt(name) + " appears twice in one object");
    member_ = &slot->second;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const json::exception&) override {
    problem_ = position > text_.size() ? "the JSON text ends too early" : "not valid JSON";
    problem_byte_ = static_cast<int64_t>(position == 0 ? 0 : position - 1);
    return false;
  }

 private:
  bool refuse(std::string problem) {
    problem_ = std::move(problem);
    return false;
  }

  json* place(json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) {
      auto& elements = open_.back()->get_ref<json::array_t&>();
      return &elements.emplace_back(std::move(value));
    }
    *member_ = std::move(value);
    return member_;
  }

  bool open(json container) {
    if (static_cast<int>(open_.size()) >= max_depth_) {
      return refuse("nested deeper than " + std::to_string(max_depth_) + " levels");
    }
    open_.push_back(place(std::move(container)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  int max_depth_;
  json root_;
  std::vector<json*> open_;  // containers begun and not ended; a parent is not touched meanwhile
  json* member_ = nullptr;   // where the value of the key just read goes
  std::string problem_;
  int64_t problem_byte_ = -1;
};

}  // namespace

Expected<JsonDocument> parse_json(std::string_view text, const std::string& where,
                                  int64_t first_byte, int max_depth) {
  TreeBuilder builder(text, max_depth);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) {
    std::string place;
    if (builder.problem_byte() >= 0) {
      place = " at byte " + std::to_string(first_byte + builder.problem_byte());
    }
    return fail(ErrorCode::kCorrupt, where + ": " + builder.problem() + place);
  }
  return JsonDocument{builder.take_root()};
}

std::string json_excerpt(const nlohmann::json& value) {
  constexpr size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

}  // namespace coppice::model
