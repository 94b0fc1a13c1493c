#include "batch_file.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "text/json.h"

namespace coppice::tools {
namespace {

using nlohmann::json;

Error wrong(const std::string& field, const std::string& takes, const json& got) {
  return {ErrorCode::kInvalidArgument, field + " takes " + takes + "; it is " +
                                           (got.is_number() ? got.dump() : got.type_name())};
}

// Reads the fields of one line; the first error stays.
class Fields {
 public:
  explicit Fields(const json& line) : line_(line) {}

  // The field's value; null pointer when absent or null.
  const json* find(const char* name) {
    known_.insert(name);
    const auto at = line_.find(name);
    return at == line_.end() || at->is_null() ? nullptr : &*at;
  }

  void number(const char* name, double& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_number()) return refuse(wrong(name, "a number", *value));
    out = value->get<double>();
  }

  void boolean(const char* name, bool& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_boolean()) return refuse(wrong(name, "true or false", *value));
    out = value->get<bool>();
  }

  void text(const char* name, std::string& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return refuse(wrong(name, "a string", *value));
    out = value->get<std::string>();
  }

  void integer(const char* name, int32_t& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (const auto whole = int32_of(*value, name)) out = *whole;
  }

  void seed(const char* name, std::optional<uint64_t>& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_number_integer()) return refuse(wrong(name, "a whole number", *value));
    // Negative seeds are distinct seeds too.
    out = value->is_number_unsigned() ? value->get<uint64_t>()
                                      : static_cast<uint64_t>(value->get<int64_t>());
  }

  void ids(const char* name, std::vector<TokenId>& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_array()) return refuse(wrong(name, "an array of token ids", *value));
    out.clear();
    for (size_t i = 0; i < value->size(); ++i) {
      const auto id = int32_of((*value)[i], std::string(name) + "[" + std::to_string(i) + "]");
      if (!id) return;
      out.push_back(*id);
    }
  }

  void tier(const char* name, std::optional<KvTier>& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return refuse(wrong(name, "off, mild, normal or hard", *value));
    const auto parsed = parse_kv_tier(value->get<std::string>(), name);
    if (!parsed) return refuse(parsed.error());
    out = *parsed;
  }

  void thinning(const char* name, KvThinning& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_string()) return refuse(wrong(name, "allow or refuse", *value));
    const auto parsed = parse_kv_thinning(value->get<std::string>(), name);
    if (!parsed) return refuse(parsed.error());
    out = *parsed;
  }

  // Places in the prompt, in tokens.
  void places(const char* name, std::vector<int64_t>& out) {
    std::vector<TokenId> read;
    ids(name, read);
    if (known_.contains(name) && line_.contains(name)) out.assign(read.begin(), read.end());
  }

  // An array of [begin, end) pairs.
  void ranges(const char* name, std::vector<TokenRange>& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (!value->is_array()) return refuse(wrong(name, "an array of [begin, end] pairs", *value));
    out.clear();
    for (size_t i = 0; i < value->size(); ++i) {
      const json& pair = (*value)[i];
      const std::string at = std::string(name) + "[" + std::to_string(i) + "]";
      if (!pair.is_array() || pair.size() != 2) {
        return refuse(wrong(at, "a pair [begin, end]", pair));
      }
      const auto begin = int32_of(pair[0], at + "[0]"), end = int32_of(pair[1], at + "[1]");
      if (!begin || !end) return;
      out.push_back({*begin, *end});
    }
  }

  // A string, or an array of strings.
  void strings(const char* name, std::vector<std::string>& out) {
    const json* value = find(name);
    if (value == nullptr) return;
    if (value->is_string()) {
      out = {value->get<std::string>()};
      return;
    }
    if (!value->is_array()) return refuse(wrong(name, "a string or an array of strings", *value));
    out.clear();
    for (const json& item : *value) {
      if (!item.is_string()) return refuse(wrong(name, "strings in its array", item));
      out.push_back(item.get<std::string>());
    }
  }

  // A field that changes the answer but that this build cannot honour; `neutral` asks for nothing.
  void unsupported(const char* name, const json& neutral) {
    const json* value = find(name);
    if (value == nullptr || *value == neutral) return;
    refuse({ErrorCode::kUnsupported, std::string(name) + " is not in this build; leave it out"});
  }

  void refuse(Error error) {
    if (!error_) error_ = std::move(error);
  }
  const std::optional<Error>& error() const { return error_; }

  void collect_unknown(int64_t number, std::map<std::string, int64_t>& out) const {
    for (const auto& [name, value] : line_.items()) {
      if (!known_.contains(name)) out.emplace(name, number);
    }
  }

 private:
  std::optional<int32_t> int32_of(const json& value, const std::string& name) {
    if (!value.is_number_integer()) {
      refuse(wrong(name, "a whole number", value));
      return std::nullopt;
    }
    const bool huge = value.is_number_unsigned() &&
                      value.get<uint64_t>() > uint64_t{std::numeric_limits<int32_t>::max()};
    const int64_t whole = huge ? std::numeric_limits<int64_t>::max() : value.get<int64_t>();
    if (whole < std::numeric_limits<int32_t>::min() ||
        whole > std::numeric_limits<int32_t>::max()) {
      refuse({ErrorCode::kInvalidArgument,
              name + " is " + value.dump() +
                  "; it takes whole numbers from -2147483648 to 2147483647"});
      return std::nullopt;
    }
    return static_cast<int32_t>(whole);
  }

  const json& line_;
  std::set<std::string> known_;
  std::optional<Error> error_;
};

void read_sampling(Fields& fields, Sampling& s) {
  fields.number("temperature", s.temperature);
  fields.integer("top_k", s.top_k);
  fields.number("top_p", s.top_p);
  fields.number("min_p", s.min_p);
  fields.seed("seed", s.seed);
  fields.integer("max_tokens", s.max_tokens);
  fields.integer("max_completion_tokens", s.max_tokens);  // wins if both are there
  fields.integer("min_tokens", s.min_tokens);
  fields.strings("stop", s.stop);
  fields.ids("stop_token_ids", s.stop_token_ids);
  fields.boolean("include_stop_str_in_output", s.include_stop_str_in_output);
  fields.boolean("ignore_eos", s.ignore_eos);
  fields.boolean("logprobs", s.logprobs);
  fields.integer("top_logprobs", s.top_logprobs);
  fields.integer("n", s.n);
}

void refuse_later(Fields& fields) {
  fields.unsupported("presence_penalty", 0);
  fields.unsupported("frequency_penalty", 0);
  fields.unsupported("repetition_penalty", 1);
  fields.unsupported("repeat_penalty", 1);
  fields.unsupported("typical_p", 1);
  fields.unsupported("logit_bias", json::object());
  fields.unsupported("response_format", json{{"type", "text"}});
  for (const char* name : {"grammar", "json_schema", "structured_outputs", "tools"}) {
    fields.unsupported(name, nullptr);
  }
}

void read_prompt(Fields& fields, Request& request) {
  if (fields.find("messages") != nullptr) {
    return fields.refuse({ErrorCode::kUnsupported,
                          "messages need a chat template, which this build does not apply; "
                          "give the text as prompt"});
  }
  const json* prompt = fields.find("prompt");
  if (prompt == nullptr) {
    fields.refuse({ErrorCode::kInvalidArgument, "prompt is missing"});
  } else if (prompt->is_string()) {
    request.prompt = prompt->get<std::string>();
  } else if (prompt->is_array()) {
    std::vector<TokenId> ids;
    fields.ids("prompt", ids);
    request.prompt = std::move(ids);
  } else {
    fields.refuse(wrong("prompt", "a string or an array of token ids", *prompt));
  }
}

using Unknown = std::map<std::string, int64_t>;

Expected<Request> read_request(const json& line, int64_t number, const Request& defaults,
                               Unknown& unknown) {
  Request request = defaults;
  Fields fields(line);
  fields.find("id");
  read_prompt(fields, request);
  read_sampling(fields, request.sampling);
  fields.text("cache_salt", request.cache_salt);
  fields.tier("kv_tier", request.kv_tier);
  fields.thinning("kv_thinning", request.kv_thinning);
  fields.ranges("exact", request.exact);
  fields.places("boundaries", request.boundaries);
  refuse_later(fields);
  fields.collect_unknown(number, unknown);
  if (fields.error()) return fail(*fields.error());
  TRY_STATUS(validate(request.sampling));
  return request;
}

// Whole numbers beyond 64 bits are read as fractions, and would be printed as other numbers.
bool prints_as_read(const json& id) {
  constexpr double kWhole = 9223372036854775808.0;  // 2^63
  if (id.is_number_float()) return std::abs(id.get<double>()) < kWhole;
  return !id.is_structured() || std::all_of(id.begin(), id.end(), prints_as_read);
}

BatchItem read_line(std::string_view text, int64_t number, const Request& defaults,
                    Unknown& unknown) {
  BatchItem item{number, nullptr, Request{}};
  const auto refuse = [&](const Error& error) {
    item.request = fail(error.code, "line " + std::to_string(number) + ": " + error.message);
  };
  const auto parsed = text::parse_json(text, "line " + std::to_string(number));
  if (!parsed) {
    item.request = fail(ErrorCode::kInvalidArgument, parsed.error().message);
    return item;
  }
  const json& line = *parsed;
  if (!line.is_object()) {
    refuse(
        {ErrorCode::kInvalidArgument, std::string("takes an object; it is ") + line.type_name()});
    return item;
  }
  if (const auto id = line.find("id"); id != line.end()) {
    if (!prints_as_read(*id)) {
      refuse(
          {ErrorCode::kInvalidArgument, "id holds a number beyond 64 bits; write it as a string"});
      return item;
    }
    item.id = *id;
  }
  item.request = read_request(line, number, defaults, unknown);
  if (!item.request) refuse(Error(item.request.error()));
  return item;
}

}  // namespace

BatchFile parse_batch(std::string_view text, const Request& defaults) {
  BatchFile out;
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    out.items.push_back(read_line(line, number, defaults, out.unknown_fields));
  }
  return out;
}

}  // namespace coppice::tools
