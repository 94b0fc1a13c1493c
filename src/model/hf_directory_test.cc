#include "model/hf_directory.h"

#include <cstring>
#include <string>

#include "model/test_files.h"

namespace coppice::model {
namespace {

constexpr const char* kConfig =
    R"({"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":16,
    "num_hidden_layers":1,"num_attention_heads":2,"vocab_size":10,"max_position_embeddings":64,
    "eos_token_id":2})";

std::string floats(std::initializer_list<float> values) {
  std::string out(values.size() * sizeof(float), '\0');
  std::memcpy(out.data(), values.begin(), out.size());
  return out;
}

std::string one_tensor(const std::string& name, float value, int pad = 0) {
  const std::string header = R"({")" + name + R"(":{"dtype":"F32","shape":[2],)" +
                             R"("data_offsets":[0,8]}})" + std::string(pad, ' ');
  return safetensors_bytes(header, floats({value, value + 1}));
}

TEST(HfDirectory, OneFile) {
  const TemporaryDirectory dir;
  dir.write("config.json", kConfig);
  dir.write("generation_config.json", R"({"eos_token_id":[3,4]})");
  dir.write("tokenizer.json", "{\"version\":\"1.0\"}");
  dir.write("model.safetensors", one_tensor("w", 5));
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->config().eos_token_ids, (std::vector<int32_t>{3, 4}));
  EXPECT_EQ((*checkpoint)->names(), std::vector<std::string>{"w"});
  EXPECT_TRUE((*checkpoint)->has("w"));
  EXPECT_FALSE((*checkpoint)->has("v"));
  const auto view = (*checkpoint)->tensor("w", {2});
  ASSERT_TRUE(view) << view.error().message;
  EXPECT_EQ(view->view.f32()[1], 6.0f);
  EXPECT_TRUE(contains(message_of((*checkpoint)->tensor("w", {1, 2})),
                       "\"w\" has the shape [2], but the config asks for [1, 2]"));
  EXPECT_TRUE(contains(message_of((*checkpoint)->tensor("v", {2})), "has no tensor \"v\""));
  const auto tokenizer = (*checkpoint)->tokenizer_json();
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(*tokenizer, "{\"version\":\"1.0\"}");
}

TEST(HfDirectory, MisalignedTensorsAreHandedOutAligned) {
  int copied = 0;
  for (int pad = 0; pad < 8; ++pad) {
    const TemporaryDirectory dir;
    dir.write("config.json", kConfig);
    dir.write("model.safetensors", one_tensor("w", 5, pad));
    const auto checkpoint = Checkpoint::open(dir.path());
    ASSERT_TRUE(checkpoint) << checkpoint.error().message;
    const auto view = (*checkpoint)->tensor("w", {2});
    ASSERT_TRUE(view);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(view->view.raw()) % alignof(float), 0u);
    EXPECT_EQ(view->view.f32()[0], 5.0f);
    EXPECT_EQ(view->view.f32()[1], 6.0f);
    copied += view->copy.bytes() > 0 ? 1 : 0;
  }
  EXPECT_EQ(copied, 6) << "a float lies right at every fourth byte";
}

TEST(HfDirectory, Shards) {
  const TemporaryDirectory dir;
  dir.write("config.json", kConfig);
  dir.write("a.safetensors", one_tensor("x", 1));
  dir.write("b.safetensors", one_tensor("y", 3));
  dir.write("model.safetensors.index.json",
            R"({"metadata":{"total_size":16},)"
            R"("weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->names(), (std::vector<std::string>{"x", "y"}));
  const auto view = (*checkpoint)->tensor("y", {2});
  ASSERT_TRUE(view);
  EXPECT_EQ(view->view.f32()[0], 3.0f);
}

TEST(HfDirectory, AWeightMapCannotLeaveTheDirectory) {
  const TemporaryDirectory dir;
  dir.write("config.json", kConfig);
  dir.write("a.safetensors", one_tensor("x", 1));
  for (const char* file :
       {R"("../a.safetensors")", R"("/etc/a.safetensors")", R"("sub/a.safetensors")",
        R"("..\\a.safetensors")", R"("a.safetensors\u0000.safetensors")", R"("..")", R"("")",
        R"(".safetensors")", R"("a.bin")", "7", "null"}) {
    dir.write("model.safetensors.index.json", std::string(R"({"weight_map":{"x":)") + file + "}}");
    EXPECT_TRUE(contains(message_of(Checkpoint::open(dir.path())), "must be a .safetensors file"))
        << file;
  }
}

TEST(HfDirectory, BrokenIndexes) {
  const TemporaryDirectory dir;
  dir.write("config.json", kConfig);
  dir.write("a.safetensors", one_tensor("x", 1));
  const auto refused = [&](const char* index) {
    dir.write("model.safetensors.index.json", index);
    return message_of(Checkpoint::open(dir.path()));
  };
  EXPECT_TRUE(contains(refused("[]"), "weight_map is not an object"));
  EXPECT_TRUE(contains(refused(R"({"weight_map":[]})"), "weight_map is not an object"));
  EXPECT_TRUE(contains(refused(R"({"weight_map":{"y":"a.safetensors"}})"), "does not hold it"));
  EXPECT_TRUE(contains(refused(R"({"weight_map":{"y":"c.safetensors"}})"), "c.safetensors"));
}

TEST(HfDirectory, MissingPartsAreNamed) {
  const TemporaryDirectory dir;
  auto error = Checkpoint::open(dir.path() + "/nowhere");
  ASSERT_FALSE(error);
  EXPECT_EQ(error.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(contains(error.error().message, "nowhere"));
  EXPECT_TRUE(contains(message_of(Checkpoint::open(dir.path())), "config.json"));
  dir.write("config.json", kConfig);
  EXPECT_TRUE(contains(message_of(Checkpoint::open(dir.path())), "model.safetensors"));
  dir.write("model.safetensors", one_tensor("w", 5));
  const auto checkpoint = Checkpoint::open(dir.path());
  ASSERT_TRUE(checkpoint);
  EXPECT_TRUE(contains(message_of((*checkpoint)->tokenizer_json()), "tokenizer.json"));
  EXPECT_TRUE(contains(message_of(Checkpoint::open(dir.path() + "/model.safetensors")),
                       "give the directory"));
}

}  // namespace
}  // namespace coppice::model
