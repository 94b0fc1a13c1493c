#include "train/tensor_file.h"

#include <fstream>

#include <gtest/gtest.h>

#include "base/file.h"

namespace coppice::train {
namespace {

std::filesystem::path scratch_file() {
  return std::filesystem::temp_directory_path() / "coppice_tensor_file_test.safetensors";
}

NamedTensors samples() {
  return {{"a.weight", torch::arange(12, torch::kFloat32).view({3, 4}) / 7},
          {"b", (torch::arange(5, torch::kFloat32) / 3).to(torch::kBFloat16)},
          {"empty", torch::empty({0, 2})},
          {"counts", torch::tensor({int64_t{1} << 40, int64_t{-3}})},
          {"scalar", torch::tensor(2.5f)}};
}

TEST(TensorFile, RoundTripKeepsEveryBit) {
  ASSERT_TRUE(write_tensors(scratch_file(), samples(), {{"step", "12"}}));
  const auto file = read_tensors(scratch_file());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->metadata.at("step"), "12");
  ASSERT_EQ(file->tensors.size(), samples().size());
  for (const auto& [name, tensor] : samples()) {
    const auto& read = file->tensors.at(name);
    EXPECT_EQ(read.scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(torch::equal(read, tensor)) << name;
  }
}

TEST(TensorFile, DataBeginsOnEightBytes) {
  ASSERT_TRUE(write_tensors(scratch_file(), samples(), {}));
  const auto bytes = *read_file(scratch_file().string());
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  EXPECT_EQ(header % 8, 0u);
}

TEST(TensorFile, RefusesEveryTruncationAndBadHeaders) {
  ASSERT_TRUE(write_tensors(scratch_file(), samples(), {}));
  const std::string whole = *read_file(scratch_file().string());
  const auto refused = [](const std::string& bytes) {
    std::ofstream(scratch_file(), std::ios::binary) << bytes;
    const auto file = read_tensors(scratch_file());
    return !file && file.error().code == ErrorCode::kCorrupt &&
           file.error().message.find("coppice_tensor_file_test") != std::string::npos;
  };
  for (size_t n = 0; n < whole.size(); n += 5) EXPECT_TRUE(refused(whole.substr(0, n))) << n;
  const auto with_header = [](const std::string& json) {
    const uint64_t size = json.size();
    return std::string(reinterpret_cast<const char*>(&size), sizeof size) + json + "12345678";
  };
  for (const char* json :
       {R"([])", R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})",
        R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})",
        R"({"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}})",
        R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})",
        R"({"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,8]}})",
        R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", R"({"a":3})"}) {
    EXPECT_TRUE(refused(with_header(json))) << json;
  }
  EXPECT_FALSE(refused(with_header(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})")));
}

TEST(TensorFile, CopyNamesWhatIsMissingOrMisshapen) {
  ASSERT_TRUE(write_tensors(scratch_file(), {{"p.a", torch::ones({2})}}, {}));
  const auto file = *read_tensors(scratch_file());
  const torch::Tensor target = torch::zeros({2});
  EXPECT_TRUE(copy_tensors(file, "p.", {{"a", target}}, "f"));
  EXPECT_TRUE(torch::equal(target, torch::ones({2})));
  EXPECT_NE(copy_tensors(file, "", {{"a", target}}, "f").error().message.find("f: a: missing"),
            std::string::npos);
  EXPECT_NE(copy_tensors(file, "p.", {{"a", torch::zeros({3})}}, "f").error().message.find("shape"),
            std::string::npos);
}

}  // namespace
}  // namespace coppice::train
