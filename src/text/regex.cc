#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/regex.h"

#include <utility>

#include <pcre2.h>

#include "base/check.h"
#include "text/pattern.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

constexpr size_t kMaxPattern = size_t{1} << 16;
// Steps of one search. Words need a few per character; only runaway patterns come near.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

struct FreeCompileContext {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = static_cast<int8_t>(c) < 0 || (c >= '0' && c <= '9') ||
                       (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!plain && c > ' ' && c != 0x7f) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace

Expected<Regex> Regex::compile(const std::string& pattern, const std::string& where) {
  TRY(const std::string translated, translate_pattern(pattern, where));
  return compile_pcre(translated, where);
}

Expected<Regex> Regex::literal(const std::string& text, const std::string& where) {
  return compile_pcre(escape(text), where);
}

Expected<Regex> Regex::compile_pcre(const std::string& pattern, const std::string& where) {
  if (pattern.size() > kMaxPattern) {
    return fail(ErrorCode::kUnsupported, where + " is a pattern of more than 65536 bytes");
  }
  const std::unique_ptr<pcre2_compile_context, FreeCompileContext> context(
      pcre2_compile_context_create(nullptr));
  CHECK(context != nullptr);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                                   context.get());
  if (code == nullptr) {
    PCRE2_UCHAR why[256] = {};
    pcre2_get_error_message(error, why, sizeof(why));
    return fail(error == PCRE2_ERROR_UNKNOWN_UNICODE_PROPERTY ? ErrorCode::kUnsupported
                                                              : ErrorCode::kCorrupt,
                where + " is not a usable pattern: " + reinterpret_cast<const char*>(why));
  }
  // Where the machine has no JIT, pcre2_match interprets.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  return Regex(code);
}

Regex::Regex(Regex&& other) noexcept : code_(std::exchange(other.code_, nullptr)) {}

Regex& Regex::operator=(Regex&& other) noexcept {
  std::swap(code_, other.code_);
  return *this;
}

Regex::~Regex() { pcre2_code_free(code_); }

Regex::Matcher::Matcher(const Regex& regex)
    : regex_(regex), found_(pcre2_match_data_create(1, nullptr)) {
  CHECK(found_ != nullptr);
}

Regex::Matcher::~Matcher() { pcre2_match_data_free(found_); }

bool Regex::Matcher::search(std::string_view text, size_t from, size_t* begin, size_t* end) {
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  int rc =
      pcre2_match(regex_.code_, subject, text.size(), from, PCRE2_NO_UTF_CHECK, found_, nullptr);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    const std::unique_ptr<pcre2_match_context, FreeMatchContext> context(
        pcre2_match_context_create(nullptr));
    CHECK(context != nullptr);
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    rc = pcre2_match(regex_.code_, subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                     found_, context.get());
  }
  if (rc < 0) return false;
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(found_);
  *begin = bounds[0];
  *end = bounds[1];
  // `\K` in a lookahead can end a match before it begins; translate_pattern refuses `\K`.
  DCHECK(*begin <= *end);
  return true;
}

void Regex::Matcher::cut(std::string_view text, std::vector<Cut>* cuts) {
  cuts->clear();
  size_t covered = 0;  // everything before it has its cut
  size_t from = 0;
  bool matched_before = false;  // the last match ended at `covered`
  while (from <= text.size()) {
    size_t begin, end;
    if (!search(text, from, &begin, &end)) break;
    if (begin == end && matched_before && end == covered) {
      // An empty match right behind a match is none.
      if (from == text.size()) break;
      from += decode_utf8(text.substr(from)).length;
      continue;
    }
    if (covered != begin) cuts->push_back({covered, begin, false});
    cuts->push_back({begin, end, true});
    covered = from = end;
    matched_before = true;
  }
  if (covered != text.size()) cuts->push_back({covered, text.size(), false});
}

}  // namespace coppice::text
