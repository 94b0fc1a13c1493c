#include "text/pattern.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <optional>
#include <span>
#include <vector>

#include "text/json.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

std::string escape_range(CodeRange range) {
  char text[40];
  std::snprintf(text, sizeof(text), "\\x{%x}-\\x{%x}", range.first, range.last);
  return text;
}

std::string escape_ranges(std::span<const CodeRange> ranges) {
  std::string out;
  for (const CodeRange& range : ranges) out += escape_range(range);
  return out;
}

// The inside of a bracketed set for a property, with what later Unicode versions added.
std::string property_set(std::string_view name, std::string_view additions) {
  std::string out = "\\p{" + std::string(name) + "}";
  for_each_addition(additions, [&](CodeRange range) { out += escape_range(range); });
  return out;
}

bool is_general_category(std::string_view name) {
  constexpr std::string_view kMajors = "CLMNPSZ";
  if (name.empty() || name.size() > 2 || kMajors.find(name[0]) == kMajors.npos) return false;
  return name.size() == 1 || (name[1] >= 'a' && name[1] <= 'z');
}

bool is_name(std::string_view name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_';
  });
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where) : rest_(pattern), where_(where) {}

  Expected<std::string> run() {
    while (!rest_.empty()) TRY_STATUS(element());
    return std::move(out_);
  }

 private:
  tl::unexpected<Error> refuse(const std::string& construct) const {
    return fail(ErrorCode::kUnsupported,
                where_ + " uses " + construct + " in a pattern, which is not supported here");
  }

  char peek(size_t ahead = 0) const { return ahead < rest_.size() ? rest_[ahead] : '\0'; }
  char take() {
    const char c = peek();
    rest_.remove_prefix(1);
    return c;
  }
  bool take_if(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }

  // What a quantifier applies to begins here in the output.
  void begin_atom() { atom_ = out_.size(); }

  Status element() {
    switch (peek()) {
      case '\\':
        return escape();
      case '[':
        return bracket();
      case '(':
        return open_group();
      case ')':
        take();
        if (groups_.empty()) return refuse("a ')' without '('");
        atom_ = groups_.back();
        groups_.pop_back();
        out_ += ')';
        return {};
      case '^':
      case '$':
        begin_atom();
        out_ += std::string("(?m:") + take() + ")";
        return {};
      case '*':
      case '+':
      case '?':
        return simple_quantifier();
      case '{':
        return interval();
      default:
        return literal();
    }
  }

  Status literal() {
    const Utf8Char c = decode_utf8(rest_);
    if (c.code_point < 0) return refuse("bytes that are not UTF-8");
    begin_atom();
    out_ += rest_.substr(0, c.length);
    rest_.remove_prefix(c.length);
    return {};
  }

  Status open_group() {
    groups_.push_back(out_.size());
    begin_atom();
    if (rest_.starts_with("(*")) return refuse("the group " + in_quotes(rest_.substr(0, 8)));
    if (!rest_.starts_with("(?")) {
      take();
      out_ += '(';
      return {};
    }
    for (const std::string_view kind : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"}) {
      if (!take_if(kind)) continue;
      out_ += kind;
      return {};
    }
    return option_group();
  }

  // (?im-im:...) and, where a group begins, (?im-im).
  Status option_group() {
    const size_t end = rest_.find_first_of(":)");
    const std::string_view options = rest_.substr(0, std::min(end, rest_.size()));
    const bool known = end != rest_.npos && options.size() > 2 &&
                       options.find_first_not_of("im-", 2) == options.npos;
    if (!known) return refuse("the group " + in_quotes(rest_.substr(0, 8)));
    const bool to_group_end = rest_[end] == ')';
    const size_t opened = groups_.back();
    const bool at_start =
        out_.empty() || out_.ends_with("(?:") || (out_.ends_with('(') && !out_.ends_with("\\("));
    // Further on, Oniguruma would bind following alternatives to the options and PCRE2 would not.
    if (to_group_end && !at_start) return refuse("options in the middle of a group");
    out_ += "(?";
    for (const char c : options.substr(2)) out_ += c == 'm' ? 's' : c;
    out_ += rest_[end];
    rest_.remove_prefix(end + 1);
    if (to_group_end) groups_.pop_back();
    atom_ = opened;
    return {};
  }

  Status simple_quantifier() {
    out_ += take();
    if (peek() == '+' || peek() == '?') out_ += take();
    return {};
  }

  void wrap_atom() {
    out_.insert(atom_, "(?:");
    out_ += ')';
    // Open groups all begin before the atom, so their starts stand.
  }

  Status interval() {
    const size_t close = rest_.find('}');
    const std::string_view body =
        close == rest_.npos ? std::string_view() : rest_.substr(1, close - 1);
    const bool numbers = !body.empty() && body.find_first_not_of("0123456789,") == body.npos &&
                         std::count(body.begin(), body.end(), ',') <= 1 && body != ",";
    if (!numbers) {  // a plain brace
      begin_atom();
      out_ += "\\";
      out_ += take();
      return {};
    }
    rest_.remove_prefix(close + 1);
    const bool exact = body.find(',') == body.npos;
    out_ += body[0] == ',' ? "{0" : "{";
    out_ += body;
    out_ += '}';
    if (peek() == '+' || (peek() == '?' && exact)) {
      wrap_atom();
      out_ += take();
    } else if (peek() == '?') {
      out_ += take();
    }
    return {};
  }

  // The inside of a bracketed set for the escape's letter; nothing when it is none of these.
  static std::optional<std::string> class_set(char letter) {
    switch (letter) {
      case 's':
        return escape_ranges(white_space());
      case 'd':
        return property_set("Nd", "Nd");
      case 'h':
        return "0-9a-fA-F";
      case 'w':
        return property_set("L", "L") + property_set("M", "M") + property_set("Nd", "Nd") +
               property_set("Nl", "Nl") + property_set("Pc", "Pc") +
               escape_ranges(alphabetic_symbols());
      default:
        return {};
    }
  }

  // A set whose complement PCRE2 cannot write inside brackets, but for the newest characters.
  static std::string negated_inside(char letter) {
    switch (letter) {
      case 'S':
        return "\\S\\x{180e}";  // PCRE2 counts U+180E as space, Oniguruma does not
      case 'D':
        return "\\P{Nd}";
      default:
        return "";
    }
  }

  // \p{Name}, \p{^Name} and \P{Name}, after the backslash. *negated: the complement is meant.
  Expected<std::string> property(bool* negated) {
    *negated = take() == 'P';
    const size_t close = rest_.find('}');
    if (peek() != '{' || close == rest_.npos) return refuse("\\p without {Name}");
    std::string_view name = rest_.substr(1, close - 1);
    rest_.remove_prefix(close + 1);
    if (name.starts_with('^')) {
      *negated = !*negated;
      name.remove_prefix(1);
    }
    if (!is_name(name)) return refuse("the property " + in_quotes(name));
    if (is_general_category(name)) return property_set(name, name);
    // PCRE2 would take a script's bare name as its extensions too.
    const std::string script = "sc:" + std::string(name);
    return property_set(script, name);
  }

  Status escape() {
    take();
    begin_atom();
    const char c = peek();
    if (rest_.empty()) return refuse("a backslash at the end");
    if (c == 'p' || c == 'P') {
      bool negated = false;
      TRY(const std::string set, property(&negated));
      out_ += (negated ? "[^" : "[") + set + "]";
      return {};
    }
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (const auto set = class_set(lower)) {
      take();
      // Outside brackets, and only there, Oniguruma counts Latin-1's digits and fractions as words.
      const char* latin1 = lower == 'w' ? "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}" : "";
      out_ += (c == lower ? "[" : "[^") + *set + latin1 + "]";
      return {};
    }
    if (c == 'A' || c == 'z' || c == 'Z') {
      out_ += '\\';
      out_ += take();
      return {};
    }
    return character_escape();
  }

  // An escape that stands for one character, after the backslash; the same inside brackets.
  Status character_escape() {
    const char c = peek();
    if (c == 'v') {  // PCRE2's \v is a set
      take();
      out_ += "\\x0b";
      return {};
    }
    if (std::string_view("ntrfae").find(c) != std::string_view::npos) {
      out_ += '\\';
      out_ += take();
      return {};
    }
    if (c == 'x' || c == 'u') return hex_escape();
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      return refuse(std::string("\\") + c);
    }
    const Utf8Char character = decode_utf8(rest_);
    if (character.code_point < 0) return refuse("bytes that are not UTF-8");
    if (character.length == 1) out_ += '\\';
    out_ += rest_.substr(0, character.length);
    rest_.remove_prefix(character.length);
    return {};
  }

  // \xHH, \x{H..} and \uHHHH.
  Status hex_escape() {
    const char kind = take();
    std::string_view digits;
    if (kind == 'x' && peek() == '{') {
      const size_t close = rest_.find('}');
      if (close == rest_.npos) return refuse("\\x{ without }");
      digits = rest_.substr(1, close - 1);
      rest_.remove_prefix(close + 1);
    } else {
      const size_t want = kind == 'x' ? 2 : 4;
      digits = rest_.substr(0, std::min(want, rest_.size()));
      if (digits.size() != want) return refuse(std::string("\\") + kind + " without its digits");
      rest_.remove_prefix(want);
      // Two digits are a byte to Oniguruma and a character to PCRE2.
      if (kind == 'x' && digits[0] > '7') return refuse("\\x" + std::string(digits));
    }
    const bool hex = !digits.empty() && digits.size() <= 8 &&
                     digits.find_first_not_of("0123456789abcdefABCDEF") == digits.npos;
    if (!hex) return refuse("\\x with the digits " + in_quotes(digits));
    out_ += "\\x{" + std::string(digits) + "}";
    return {};
  }

  Status bracket() {
    begin_atom();
    take();
    out_ += '[';
    if (take_if("^")) out_ += '^';
    if (peek() == ']') return refuse("a set that begins with ']'");
    int depth = 1;
    while (depth > 0) {
      if (rest_.empty()) return refuse("a '[' without ']'");
      TRY_STATUS(in_bracket(&depth));
    }
    out_ += ']';
    return {};
  }

  Status in_bracket(int* depth) {
    if (take_if("]")) {
      --*depth;
      const bool as_range = *depth > 0 && peek() == '-' && peek(1) != ']';
      if (as_range) return refuse("'-' after a set inside a set");
      return {};
    }
    if (rest_.starts_with("[:") || rest_.starts_with("[^") || rest_.starts_with("[]")) {
      return refuse("the set " + in_quotes(rest_.substr(0, 3)) + " inside a set");
    }
    if (rest_.starts_with("&&")) return refuse("&& inside a set");
    if (peek() == '[' && out_.ends_with('-') && !out_.ends_with("\\-")) {
      return refuse("'-' before a set inside a set");
    }
    if (take_if("[")) {  // a nested set is a union: its brackets can go
      ++*depth;
      return {};
    }
    if (peek() != '\\') {
      const Utf8Char c = decode_utf8(rest_);
      if (c.code_point < 0) return refuse("bytes that are not UTF-8");
      out_ += rest_.substr(0, c.length);
      rest_.remove_prefix(c.length);
      return {};
    }
    take();
    return escape_in_bracket();
  }

  Status escape_in_bracket() {
    const char c = peek();
    if (rest_.empty()) return refuse("a backslash at the end");
    if (c == 'p' || c == 'P') {
      bool negated = false;
      TRY(const std::string set, property(&negated));
      if (!negated) {
        out_ += set;
      } else {
        const std::string_view positive = std::string_view(set).substr(0, set.find('}') + 1);
        out_ += "\\P" + std::string(positive.substr(2));
      }
      return {};
    }
    if (const auto set = class_set(c)) {
      take();
      out_ += *set;
      return {};
    }
    if (c == 'S' || c == 'D') {
      out_ += negated_inside(take());
      return {};
    }
    if (c == 'b') {
      take();
      out_ += "\\x08";
      return {};
    }
    return character_escape();
  }

  std::string_view rest_;
  const std::string& where_;
  std::string out_;
  size_t atom_ = 0;
  std::vector<size_t> groups_;  // where each open group begins in the output
};

}  // namespace

Expected<std::string> translate_pattern(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace coppice::text
