#include "ops/cpu/topology.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace coppice::ops::cpu {
namespace {

// A folder as the system lays it out, of cpus that the test describes.
class TopologyTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "coppice_topology_XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    system_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(system_); }

  void put(const std::string& path, const std::string& text) {
    const std::filesystem::path file = system_ + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  void put_cpu(int number, const std::string& siblings, const std::string& last_level) {
    const std::string cpu = "cpu" + std::to_string(number);
    put(cpu + "/topology/thread_siblings_list", siblings);
    put(cpu + "/cache/index0/level", "1");
    put(cpu + "/cache/index0/shared_cpu_list", siblings);
    put(cpu + "/cache/index1/level", "3");
    put(cpu + "/cache/index1/shared_cpu_list", last_level);
  }

  std::string system_;
};

std::vector<std::pair<int, int>> pairs(const Topology& topology) {
  std::vector<std::pair<int, int>> out;
  for (const Cpu& cpu : topology.cpus) out.emplace_back(cpu.number, cpu.group);
  return out;
}

using Pairs = std::vector<std::pair<int, int>>;

TEST_F(TopologyTest, ACoresSecondThreadComesAfterEveryCore) {
  for (int i = 0; i < 8; ++i) {  // siblings are neighbours, as some systems number them
    const int core = i / 2 * 2;
    put_cpu(i, std::to_string(core) + "-" + std::to_string(core + 1), i < 4 ? "0-3" : "4-7");
  }
  const Topology t = read_topology({0, 1, 2, 3, 4, 5, 6, 7}, system_);
  EXPECT_EQ(t.cores, 4);
  EXPECT_EQ(pairs(t), (Pairs{{0, 0}, {2, 0}, {4, 1}, {6, 1}, {1, 0}, {3, 0}, {5, 1}, {7, 1}}));
}

TEST_F(TopologyTest, CoresOfACacheStandTogetherHoweverTheyAreNumbered) {
  for (int i = 0; i < 4; ++i) put_cpu(i, std::to_string(i), i % 2 == 0 ? "0,2" : "1,3");
  EXPECT_EQ(pairs(read_topology({0, 1, 2, 3}, system_)), (Pairs{{0, 0}, {2, 0}, {1, 1}, {3, 1}}));
}

TEST_F(TopologyTest, OnlyAllowedCpusCount) {
  for (int i = 0; i < 4; ++i) put_cpu(i, i < 2 ? "0-1" : "2-3", "0-3");
  const Topology t = read_topology({1, 3}, system_);
  EXPECT_EQ(t.cores, 2);
  EXPECT_EQ(pairs(t), (Pairs{{1, 0}, {3, 0}}));
}

TEST_F(TopologyTest, WithoutCachesThePackageIsTheGroup) {
  for (int i = 0; i < 4; ++i) {
    put("cpu" + std::to_string(i) + "/topology/physical_package_id", std::to_string(i / 2));
  }
  const Topology t = read_topology({0, 1, 2, 3}, system_);
  EXPECT_EQ(t.cores, 4);
  EXPECT_EQ(pairs(t), (Pairs{{0, 0}, {1, 0}, {2, 1}, {3, 1}}));
}

TEST_F(TopologyTest, NothingKnownIsOneGroup) {
  EXPECT_EQ(pairs(read_topology({4, 5}, system_)), (Pairs{{4, 0}, {5, 0}}));
  EXPECT_EQ(read_topology({}, system_).cores, 1);
}

TEST(Topology, ThisMachineHasACore) {
  const Topology t = this_machine();
  EXPECT_GE(t.cores, 1);
  EXPECT_LE(t.cores, static_cast<int>(std::thread::hardware_concurrency()));
  EXPECT_GE(static_cast<int>(t.cpus.size()), t.cores);
}

}  // namespace
}  // namespace coppice::ops::cpu
