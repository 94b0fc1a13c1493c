#include "base/file.h"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

namespace coppice {
namespace {

std::string temporary(const char* name) {
  return (std::filesystem::temp_directory_path() / name).string();
}

TEST(File, WritesWhatIsReadBack) {
  const std::string path = temporary("coppice_file_test");
  const std::string text = std::string("a\0b", 3);
  ASSERT_TRUE(write_file(path, text));
  auto read = read_file(path);
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, text);
  EXPECT_FALSE(std::filesystem::exists(path + ".partial"));
  std::filesystem::remove(path);
}

TEST(File, EmptyFileMapsToNothing) {
  const std::string path = temporary("coppice_file_empty");
  ASSERT_TRUE(write_file(path, ""));
  auto file = MappedFile::open(path);
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->bytes().empty());
  std::filesystem::remove(path);
}

TEST(File, ErrorsNameThePath) {
  auto missing = MappedFile::open("/nowhere/model.gguf");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message.find("/nowhere/model.gguf"), std::string::npos);
  auto directory = MappedFile::open(std::filesystem::temp_directory_path().string());
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, ErrorCode::kInvalidArgument);
  const std::string path = temporary("coppice_file_large");
  ASSERT_TRUE(write_file(path, "12345"));
  auto large = read_file(path, 4);
  ASSERT_FALSE(large);
  EXPECT_EQ(large.error().code, ErrorCode::kTooLarge);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace coppice
