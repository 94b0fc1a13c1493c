// What:    the golden files of tests/data/tokenizer, for this room's tests.
// Owns:    what it returns.
// Threads: any.
// Fails:   a file that cannot be read or parsed fails the test that asked.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/file.h"
#include "text/json.h"
#include "text/tokenizer.h"

namespace coppice::text::testing {

inline std::string golden_path(const std::string& name) {
  return std::string(COPPICE_TEST_DATA) + "/tokenizer/" + name;
}

inline std::string golden_file(const std::string& name) {
  auto bytes = read_file(golden_path(name));
  EXPECT_TRUE(bytes) << golden_path(name);
  return bytes ? *bytes : std::string();
}

// One JSON value per line.
inline std::vector<Json> golden_lines(const std::string& name) {
  const std::string text = golden_file(name);
  std::vector<Json> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(Json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  EXPECT_FALSE(lines.empty()) << name;
  return lines;
}

inline std::unique_ptr<Tokenizer> load_or_fail(const std::string& json, const std::string& where) {
  auto tokenizer = Tokenizer::load(json, where);
  EXPECT_TRUE(tokenizer) << (tokenizer ? "" : tokenizer.error().message);
  return tokenizer ? std::move(*tokenizer) : nullptr;
}

inline std::unique_ptr<Tokenizer> golden_tokenizer(const std::string& name) {
  return load_or_fail(golden_file(name + ".json"), name);
}

inline constexpr const char* kVocabularies[] = {"gpt2", "llama3", "qwen2"};

}  // namespace coppice::text::testing
