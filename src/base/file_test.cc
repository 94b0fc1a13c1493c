#include "base/file.h"

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <string>
#include <thread>

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

class WriteFile : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / ("coppice_write_" + std::to_string(::getpid()));
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string at(const char* name) const { return (dir_ / name).string(); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir_), {}));
  }

  std::filesystem::path dir_;
};

TEST_F(WriteFile, FollowsLinksEvenToNothing) {
  std::filesystem::create_directory(dir_ / "below");
  std::filesystem::create_symlink("below/target", dir_ / "second");
  std::filesystem::create_symlink(at("second"), dir_ / "first");
  for (const char* text : {"new", "newer"}) {
    ASSERT_TRUE(write_file(at("first"), text));
    EXPECT_TRUE(std::filesystem::is_symlink(dir_ / "first"));
    EXPECT_TRUE(std::filesystem::is_symlink(dir_ / "second"));
    EXPECT_EQ(*read_file(at("below/target")), text);
  }
  EXPECT_EQ(followed(at("first")), at("below/target"));
  std::filesystem::create_symlink("round", dir_ / "round");
  EXPECT_FALSE(write_file(at("round"), "x"));
}

TEST_F(WriteFile, KeepsPermissions) {
  ASSERT_TRUE(write_file(at("private"), "a"));
  std::filesystem::permissions(dir_ / "private", std::filesystem::perms::owner_read);
  ASSERT_TRUE(write_file(at("private"), "b"));
  EXPECT_EQ(std::filesystem::status(dir_ / "private").permissions(),
            std::filesystem::perms::owner_read);
}

TEST_F(WriteFile, APipeIsWrittenToAndStaysOne) {
  const std::string pipe = at("pipe");
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::string got;
  std::thread reader([&] {
    std::FILE* in = std::fopen(pipe.c_str(), "rb");
    for (int c; (c = std::fgetc(in)) != EOF;) got.push_back(static_cast<char>(c));
    std::fclose(in);
  });
  const std::string text(100000, 'x');  // more than a pipe holds
  const Status written = write_file(pipe, text);
  if (!std::filesystem::is_fifo(pipe)) std::exit(1);  // the reader waits for ever
  reader.join();
  EXPECT_TRUE(written);
  EXPECT_EQ(got, text);
}

TEST_F(WriteFile, AnOpenDescriptorIsAppendedTo) {
  ASSERT_TRUE(write_file(at("log"), "before "));
  std::FILE* log = std::fopen(at("log").c_str(), "ab");
  ASSERT_NE(log, nullptr);
  EXPECT_TRUE(write_file("/dev/fd/" + std::to_string(::fileno(log)), "after"));
  std::fclose(log);
  EXPECT_EQ(*read_file(at("log")), "before after");
}

TEST_F(WriteFile, AFailureLeavesNothingBehind) {
  std::filesystem::create_directory(dir_ / "directory");
  EXPECT_FALSE(write_file(at("directory"), "x"));
  ASSERT_TRUE(write_file(at("kept"), "old"));
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit), 0);
  const rlimit full{4096, limit.rlim_max};
  const auto before = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &full), 0);
  const Status written = write_file(at("kept"), std::string(100000, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  std::signal(SIGXFSZ, before);
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().message, at("kept") + ": cannot write: File too large");
  EXPECT_EQ(*read_file(at("kept")), "old");
  EXPECT_EQ(entries(), 2u);
}

TEST_F(WriteFile, WhatHasThePartialNameIsLeftAlone) {
  ASSERT_TRUE(write_file(at("precious"), "precious"));
  std::filesystem::create_symlink(at("precious"), dir_ / "new.partial");
  std::filesystem::create_directory(dir_ / "new.partial1");
  ASSERT_TRUE(write_file(at("new"), "new"));
  EXPECT_EQ(*read_file(at("precious")), "precious");
  EXPECT_EQ(*read_file(at("new")), "new");
  EXPECT_EQ(entries(), 4u);
}

TEST_F(WriteFile, OfTwoAtOnceEachIsWhole) {
  const Status first = write_file(at("both"), [&](const FileSink& sink) -> Status {
    TRY_STATUS(sink("first"));
    EXPECT_TRUE(write_file(at("both"), [&](const FileSink& other) -> Status {
      TRY_STATUS(other("sec"));
      EXPECT_FALSE(std::filesystem::exists(dir_ / "both"));
      return other("ond");
    }));
    EXPECT_EQ(*read_file(at("both")), "second");
    return sink(" and more");
  });
  EXPECT_TRUE(first);
  EXPECT_EQ(*read_file(at("both")), "first and more");
  EXPECT_EQ(entries(), 1u);
}

TEST(MappedFile, PipesAndDevicesAreRefusedAtOnce) {
  const std::string path = ::testing::TempDir() + "/pipe" + std::to_string(getpid());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  for (const std::string& name : {path, std::string("/dev/null")}) {
    const auto file = MappedFile::open(name);
    ASSERT_FALSE(file) << name;
    EXPECT_EQ(file.error().message, name + ": is not a regular file");
  }
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace coppice
