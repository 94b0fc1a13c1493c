#include "text/normalizer.h"

#include <algorithm>
#include <vector>

#include <utf8proc.h>

#include "base/check.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<int8_t>(c) >= 0; });
}

// One of the four Unicode normalisation forms. Ordering is done here and not in utf8proc, whose
// bubble sort takes a minute on a megabyte of combining marks.
class UnicodeForm : public Normalizer {
 public:
  UnicodeForm(bool compose, bool compatible) : compose_(compose), compatible_(compatible) {}

  std::string apply(std::string_view text) const override {
    if (is_ascii(text)) return std::string(text);
    std::string out;
    out.reserve(text.size());
    std::vector<int32_t> run;  // characters since the last one that is left as it is
    while (!text.empty()) {
      const Utf8Char c = decode_utf8(text);
      DCHECK(c.code_point >= 0);
      text.remove_prefix(c.length);
      if (!is_not_normalized(c.code_point)) {
        decompose(c.code_point, &run);
        continue;
      }
      flush(&run, &out);
      append_utf8(c.code_point, &out);
    }
    flush(&run, &out);
    return out;
  }

 private:
  void decompose(int32_t code_point, std::vector<int32_t>* run) const {
    constexpr int kLongest = 32;  // U+FDFA decomposes into 18
    const int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible_ ? UTF8PROC_COMPAT : 0);
    int32_t parts[kLongest];
    int last_class = 0;
    const utf8proc_ssize_t count = utf8proc_decompose_char(
        code_point, parts, kLongest, static_cast<utf8proc_option_t>(options), &last_class);
    CHECK(count >= 0 && count <= kLongest);
    run->insert(run->end(), parts, parts + count);
  }

  void flush(std::vector<int32_t>* run, std::string* out) const {
    order_marks(run);
    utf8proc_ssize_t count = static_cast<utf8proc_ssize_t>(run->size());
    if (compose_) {
      const int options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
      count = utf8proc_normalize_utf32(run->data(), count, static_cast<utf8proc_option_t>(options));
      CHECK(count >= 0);
    }
    for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8((*run)[i], out);
    run->clear();
  }

  // Canonical order: each run of marks, by combining class, ties as they stood.
  static void order_marks(std::vector<int32_t>* run) {
    const auto klass = [](int32_t c) { return utf8proc_get_property(c)->combining_class; };
    for (auto at = run->begin(); at != run->end();) {
      at = std::find_if(at, run->end(), [&](int32_t c) { return klass(c) != 0; });
      const auto end = std::find_if(at, run->end(), [&](int32_t c) { return klass(c) == 0; });
      std::stable_sort(at, end, [&](int32_t a, int32_t b) { return klass(a) < klass(b); });
      at = end;
    }
  }

  bool compose_;
  bool compatible_;
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> parts)
      : parts_(std::move(parts)) {}

  std::string apply(std::string_view text) const override {
    std::string out(text);
    for (const auto& part : parts_) out = part->apply(out);
    return out;
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

Expected<std::unique_ptr<Normalizer>> load_sequence(const JsonAt& config) {
  TRY(const JsonAt list, config.at("normalizers"));
  TRY_STATUS(list.array());
  std::vector<std::unique_ptr<Normalizer>> parts;
  for (size_t i = 0; i < list.value().size(); ++i) {
    TRY(auto part, load_normalizer(list.item(i)));
    parts.push_back(std::move(part));
  }
  return std::make_unique<NormalizerSequence>(std::move(parts));
}

}  // namespace

Expected<std::unique_ptr<Normalizer>> load_normalizer(const JsonAt& config) {
  if (config.is_null()) {
    return std::make_unique<NormalizerSequence>(std::vector<std::unique_ptr<Normalizer>>());
  }
  TRY(const std::string type, config.string("type"));
  if (type == "Sequence") return load_sequence(config);
  if (type == "NFC") return std::make_unique<UnicodeForm>(true, false);
  if (type == "NFD") return std::make_unique<UnicodeForm>(false, false);
  if (type == "NFKC") return std::make_unique<UnicodeForm>(true, true);
  if (type == "NFKD") return std::make_unique<UnicodeForm>(false, true);
  return config.unsupported("has the type " + in_quotes(type) +
                            "; what works: null, NFC, NFD, NFKC, NFKD, Sequence");
}

}  // namespace coppice::text
