// What:    what the format tests share: a directory that goes away, and safetensors bytes by hand.
// Owns:    TemporaryDirectory owns the directory and all in it.
// Threads: any.
// Fails:   never, short of a full disk.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/file.h"

namespace coppice::model {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "coppice_model_XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  std::string write(const std::string& name, std::string_view bytes) const {
    const std::string file = path_ + "/" + name;
    CHECK(write_file(file, bytes).has_value());
    return file;
  }

 private:
  std::string path_;
};

// `number` in little-endian order, `bytes` of them.
inline std::string little(uint64_t number, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i) out += static_cast<char>(number >> 8 * i);
  return out;
}

inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
  return little(header.size(), 8) + header + data;
}

inline std::span<const uint8_t> as_bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// The error's message, or a failed expectation when there is a value.
template <class T>
std::string message_of(const Expected<T>& result) {
  EXPECT_FALSE(result.has_value());
  return result ? "" : result.error().message;
}

inline ::testing::AssertionResult contains(const std::string& text, std::string_view part) {
  if (text.find(part) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << text << "\" lacks \"" << part << "\"";
}

}  // namespace coppice::model
