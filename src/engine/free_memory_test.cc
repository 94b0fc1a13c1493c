#include "engine/free_memory.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <unistd.h>

namespace coppice::engine {
namespace {

namespace fs = std::filesystem;

// A machine of 8 MB available, with control groups /a and /a/b.
class FreeMemory : public testing::Test {
 protected:
  FreeMemory() {
    write("meminfo", "MemTotal: 16000 kB\nMemAvailable:    8000 kB\n");
    write("own", "1:name=systemd:/elsewhere\n0::/a/b\n");
    files_ = {root_ / "meminfo", root_ / "own", root_ / "groups"};
  }
  ~FreeMemory() override { fs::remove_all(root_); }

  void write(const std::string& name, const std::string& text) {
    fs::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  void limit(const std::string& group, const std::string& most, int64_t used, int64_t inactive) {
    write("groups" + group + "/memory.max", most + "\n");
    write("groups" + group + "/memory.current", std::to_string(used) + "\n");
    write("groups" + group + "/memory.stat",
          "anon 1\ninactive_file_x 7\ninactive_file " + std::to_string(inactive) + "\n");
  }
  int64_t free() const { return free_memory(files_); }

  fs::path root_ =
      fs::path(testing::TempDir()) / ("coppice-free-memory-" + std::to_string(::getpid()));
  MemoryFiles files_;
};

TEST_F(FreeMemory, WithoutGroupsIsTheSystems) { EXPECT_EQ(free(), 8000 * 1024); }

TEST_F(FreeMemory, WithoutAnythingIsAGuess) {
  write("meminfo", "MemTotal: 16000 kB\n");
  EXPECT_EQ(free(), int64_t{1} << 30);
}

TEST_F(FreeMemory, TheTightestGroupOfThePathCounts) {
  limit("/a/b", "5000000", 1000000, 0);
  EXPECT_EQ(free(), 4000000);
  limit("/a", "6000000", 3000000, 0);
  EXPECT_EQ(free(), 3000000);
  limit("", "2500000", 500000, 0);  // a container sees its own group at the top
  EXPECT_EQ(free(), 2000000);
  limit("/a", "max", 3000000, 0);
  limit("", "max", 500000, 0);
  EXPECT_EQ(free(), 4000000);
  limit("/elsewhere", "10", 5, 0);
  EXPECT_EQ(free(), 4000000);
}

TEST_F(FreeMemory, CachedFilesCountAsFree) {
  limit("/a/b", "5000000", 4500000, 4000000);
  EXPECT_EQ(free(), 4500000);
  limit("/a/b", "5000000", 6000000, 400000);  // over its limit for a moment
  EXPECT_EQ(free(), 0);
}

TEST_F(FreeMemory, AGroupThatIsNotMountedBoundsNothing) {
  for (const char* own : {"0::/\n", "0::/../..\n", "0::\n", "", "0::/gone/b\n"}) {
    write("own", own);
    EXPECT_EQ(free(), 8000 * 1024) << own;
    limit("", "5000000", 1000000, 0);
    EXPECT_EQ(free(), 4000000) << own;
    fs::remove_all(root_ / "groups");
  }
}

}  // namespace
}  // namespace coppice::engine
