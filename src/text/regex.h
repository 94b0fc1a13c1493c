// What:    splitting a text by a pattern, as the reference tokenizer's engine (Oniguruma) would.
// Owns:    the compiled pattern.
// Threads: const use from any thread; a Matcher belongs to one.
// Fails:   compile: kCorrupt for a broken pattern, kUnsupported for one that means something else.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

namespace coppice::text {

// A part of a text, by byte; cuts cover the text in order, without gaps.
struct Cut {
  size_t begin, end;
  bool is_match;
};

class Regex {
 public:
  // pattern: Oniguruma's syntax, well-formed UTF-8. where: the key, for errors.
  static Expected<Regex> compile(const std::string& pattern, const std::string& where);
  // Finds the text itself.
  static Expected<Regex> literal(const std::string& text, const std::string& where);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;
    // Replaces *cuts by those of text (well-formed UTF-8), which is matched on its own: nothing
    // before or after it is seen. A search that runs out of its step budget ends the matching;
    // the rest is one cut without a match.
    void cut(std::string_view text, std::vector<Cut>* cuts);

   private:
    bool search(std::string_view text, size_t from, size_t* begin, size_t* end);

    const Regex& regex_;
    pcre2_real_match_data_8* found_;
  };

 private:
  explicit Regex(pcre2_real_code_8* code) : code_(code) {}
  static Expected<Regex> compile_pcre(const std::string& pattern, const std::string& where);

  pcre2_real_code_8* code_ = nullptr;
};

}  // namespace coppice::text
