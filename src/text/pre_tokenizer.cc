#include "text/pre_tokenizer.h"

#include <string_view>
#include <utility>

#include "text/byte_alphabet.h"
#include "text/regex.h"
#include "text/split_behavior.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

// GPT-2's words.
constexpr char kGpt2Pattern[] =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// Splits every word by a pattern.
class Splitter : public PreTokenizer {
 public:
  Splitter(Regex regex, SplitBehavior behavior, bool invert)
      : regex_(std::move(regex)), behavior_(behavior), invert_(invert) {}

  void apply(Words* words) const override {
    Regex::Matcher matcher(regex_);
    std::vector<Words::Span> out;
    std::vector<Cut> cuts;
    for (const Words::Span& span : words->spans) {
      const std::string_view word(words->text.data() + span.begin, span.end - span.begin);
      matcher.cut(word, &cuts);
      if (invert_) {
        for (Cut& cut : cuts) cut.is_match = !cut.is_match;
      }
      apply_behavior(behavior_, &cuts);
      for (const Cut& cut : cuts) out.push_back({span.begin + cut.begin, span.begin + cut.end});
    }
    words->spans = std::move(out);
  }

 private:
  Regex regex_;
  SplitBehavior behavior_;
  bool invert_;
};

// Spells every byte by its character of GPT-2's alphabet, after an optional space and split.
class ByteLevel : public PreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, std::unique_ptr<Splitter> splitter)
      : add_prefix_space_(add_prefix_space), splitter_(std::move(splitter)) {}

  void apply(Words* words) const override {
    if (add_prefix_space_) prefix_spaces(words);
    if (splitter_) splitter_->apply(words);
    rewrite(words,
            [](std::string_view word, bool, std::string* out) { append_byte_chars(word, out); });
  }

 private:
  template <class Append>
  static void rewrite(Words* words, Append append) {
    std::string text;
    text.reserve(words->text.size() + words->text.size() / 2);
    bool first = true;
    for (Words::Span& span : words->spans) {
      const std::string_view word(words->text.data() + span.begin, span.end - span.begin);
      const size_t begin = text.size();
      append(word, std::exchange(first, false), &text);
      span = {begin, text.size()};
    }
    words->text = std::move(text);
  }

  static void prefix_spaces(Words* words) {
    const bool continues = words->continues;
    rewrite(words, [continues](std::string_view word, bool first, std::string* out) {
      if (word[0] != ' ' && !(first && continues)) out->push_back(' ');
      out->append(word);
    });
  }

  bool add_prefix_space_;
  std::unique_ptr<Splitter> splitter_;
};

class PreTokenizerSequence : public PreTokenizer {
 public:
  explicit PreTokenizerSequence(std::vector<std::unique_ptr<PreTokenizer>> parts)
      : parts_(std::move(parts)) {}

  void apply(Words* words) const override {
    for (const auto& part : parts_) part->apply(words);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> parts_;
};

Expected<std::unique_ptr<Splitter>> make_splitter(const std::string& pattern,
                                                  SplitBehavior behavior, bool invert,
                                                  const std::string& where) {
  TRY(Regex regex, Regex::compile(pattern, where));
  return std::make_unique<Splitter>(std::move(regex), behavior, invert);
}

// A stage of the list. *byte_levels: how many ByteLevel stages there are so far.
Expected<std::unique_ptr<PreTokenizer>> load_stage(const JsonAt& config, int* byte_levels);

Expected<std::unique_ptr<PreTokenizer>> load_byte_level(const JsonAt& config, int* byte_levels) {
  // Each doubles the text; the second would spell the first one's spelling.
  if (++*byte_levels > 1) return config.unsupported("is a second ByteLevel; what works: one");
  TRY(const bool add_prefix_space, config.boolean("add_prefix_space"));
  bool use_regex = true;
  if (config.has("use_regex")) {
    TRY(use_regex, config.boolean("use_regex"));
  }
  std::unique_ptr<Splitter> splitter;
  if (use_regex) {
    TRY(splitter, make_splitter(kGpt2Pattern, SplitBehavior::kIsolated, false, config.path()));
  }
  return std::make_unique<ByteLevel>(add_prefix_space, std::move(splitter));
}

Expected<Regex> load_split_pattern(const JsonAt& config) {
  TRY(const JsonAt pattern, config.at("pattern"));
  TRY_STATUS(pattern.object());
  if (pattern.has("Regex")) {
    TRY(const std::string regex, pattern.string("Regex"));
    return Regex::compile(regex, pattern.path() + ".Regex");
  }
  if (!pattern.has("String")) return pattern.corrupt("must hold \"Regex\" or \"String\"");
  TRY(const std::string literal, pattern.string("String"));
  return Regex::literal(literal, pattern.path() + ".String");
}

Expected<std::unique_ptr<PreTokenizer>> load_split(const JsonAt& config) {
  TRY(Regex regex, load_split_pattern(config));
  TRY(const JsonAt behavior_at, config.at("behavior"));
  TRY(const SplitBehavior behavior, load_split_behavior(behavior_at));
  TRY(const bool invert, config.boolean("invert"));
  return std::make_unique<Splitter>(std::move(regex), behavior, invert);
}

Expected<std::unique_ptr<PreTokenizer>> load_digits(const JsonAt& config) {
  TRY(const bool individual, config.boolean("individual_digits"));
  std::string set = "[\\p{N}";
  for_each_addition("Digits", [&](CodeRange range) {
    for (int32_t c = range.first; c <= range.last; ++c) append_utf8(c, &set);
  });
  return make_splitter(set + "]",
                       individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false,
                       config.path());
}

// Words of word characters and words of the rest; white space goes.
Expected<std::unique_ptr<PreTokenizer>> load_whitespace(const JsonAt& config) {
  constexpr char kWord[] = R"([\w\x{200c}\x{200d}]+|[^\w\x{200c}\x{200d}\s]+)";
  return make_splitter(kWord, SplitBehavior::kRemoved, true, config.path());
}

Expected<std::unique_ptr<PreTokenizer>> load_sequence(const JsonAt& config, int* byte_levels) {
  TRY(const JsonAt list, config.at("pretokenizers"));
  TRY_STATUS(list.array());
  std::vector<std::unique_ptr<PreTokenizer>> parts;
  for (size_t i = 0; i < list.value().size(); ++i) {
    TRY(auto part, load_stage(list.item(i), byte_levels));
    parts.push_back(std::move(part));
  }
  return std::make_unique<PreTokenizerSequence>(std::move(parts));
}

Expected<std::unique_ptr<PreTokenizer>> load_stage(const JsonAt& config, int* byte_levels) {
  TRY(const std::string type, config.string("type"));
  if (type == "Sequence") return load_sequence(config, byte_levels);
  if (type == "ByteLevel") return load_byte_level(config, byte_levels);
  if (type == "Split") return load_split(config);
  if (type == "Digits") return load_digits(config);
  if (type == "Whitespace") return load_whitespace(config);
  if (type == "WhitespaceSplit") {
    return make_splitter("\\s", SplitBehavior::kRemoved, false, config.path());
  }
  return config.unsupported("has the type " + in_quotes(type) +
                            "; what works: null, ByteLevel, Split, Digits, Whitespace, "
                            "WhitespaceSplit, Sequence");
}

}  // namespace

Expected<std::unique_ptr<PreTokenizer>> load_pre_tokenizer(const JsonAt& config) {
  if (config.is_null()) {
    return std::make_unique<PreTokenizerSequence>(std::vector<std::unique_ptr<PreTokenizer>>());
  }
  int byte_levels = 0;
  return load_stage(config, &byte_levels);
}

}  // namespace coppice::text
