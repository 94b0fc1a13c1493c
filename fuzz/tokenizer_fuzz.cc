// tokenizer.json and the texts it meets. The first byte says what the input is: '{' a file, 'T' a
// text, 'D' ids, 'P' a pattern, a line feed and a text.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "fuzz_require.h"
#include "text/regex.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace {

using namespace coppice::text;

std::unique_ptr<Tokenizer> golden(const std::string& name) {
  const std::string path = std::string(COPPICE_TEST_DATA) + "/tokenizer/" + name + ".json";
  const auto json = coppice::read_file(path);
  REQUIRE(json);
  auto tokenizer = Tokenizer::load(*json, path);
  REQUIRE(tokenizer);
  return std::move(*tokenizer);
}

void require_stream_equals_whole(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  IncrementalDecoder decoder(tokenizer);
  std::string text;
  for (const TokenId id : ids) {
    const std::string part = decoder.push(id);
    REQUIRE(valid_utf8_prefix(part) == part.size());
    text += part;
  }
  text += decoder.finish();
  REQUIRE(text == tokenizer.decode(ids, false));
}

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text) {
  const auto ids = tokenizer.encode(text, true);
  for (const TokenId id : ids) REQUIRE(id >= 0 && id < tokenizer.vocab_size());
  require_stream_equals_whole(tokenizer, ids);
  return ids;
}

void try_file(const std::string& json) {
  const auto tokenizer = Tokenizer::load(json, "f");
  if (!tokenizer) {
    const std::string& message = tokenizer.error().message;
    REQUIRE(message.starts_with("f: ") && message.size() < 2000);
    for (const char c : message) REQUIRE(c >= 0x20 && c < 0x7f);
    return;
  }
  for (const char* text :
       {"", "ab a  b\n123 <s>word", "\u00e9\u0301 \u4e2d\u6587 it's", "a\xff\xe4"}) {
    encode(**tokenizer, text);
  }
}

void try_text(std::string_view text) {
  static const auto gpt2 = golden("gpt2");
  static const auto llama3 = golden("llama3");
  static const auto qwen2 = golden("qwen2");
  encode(*gpt2, text);
  encode(*qwen2, text);
  // Nothing rewrites this one's text: every byte must come back.
  std::string bytes;
  for (const TokenId id : encode(*llama3, text)) bytes += llama3->token_bytes(id);
  if (text.find("<|") == text.npos) REQUIRE(bytes == text);
}

void try_ids(const uint8_t* data, size_t size) {
  static const auto qwen2 = golden("qwen2");
  std::vector<TokenId> ids;
  for (size_t i = 0; i + 1 < size; i += 2) ids.push_back((data[i] << 8 | data[i + 1]) % 1500 - 1);
  require_stream_equals_whole(*qwen2, ids);
}

void try_pattern(const std::string& input) {
  const size_t end = std::min(input.find('\n'), input.size());
  const auto regex = Regex::compile(input.substr(0, end), "f: pattern");
  if (!regex) return;
  std::string text;
  append_lossy(std::string_view(input).substr(std::min(end + 1, input.size())), false, &text);
  std::vector<Cut> cuts;
  Regex::Matcher(*regex).cut(text, &cuts);
  size_t at = 0;
  for (const Cut& cut : cuts) {
    REQUIRE(cut.begin == at && cut.end >= cut.begin);
    at = cut.end;
  }
  REQUIRE(at == text.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'T':
      try_text(rest);
      break;
    case 'D':
      try_ids(data + 1, size - 1);
      break;
    case 'P':
      if (size < 256) try_pattern(rest);
      break;
    default:
      try_file(std::string(1, static_cast<char>(data[0])) + rest);
  }
  return 0;
}
