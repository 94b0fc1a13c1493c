#include "model/gguf_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/file.h"
#include "model/gguf_builder.h"
#include "model/gguf_names.h"
#include "model/safetensors.h"
#include "model/test_config.h"

namespace coppice::model {
namespace {

const std::string kData = COPPICE_TEST_DATA;

std::unique_ptr<Checkpoint> open(const std::string& path) {
  auto checkpoint = Checkpoint::open(path);
  EXPECT_TRUE(checkpoint) << checkpoint.error().message;
  return checkpoint ? std::move(*checkpoint) : nullptr;
}

std::vector<float> values(const TensorView& view) {
  std::vector<float> out;
  const auto count = static_cast<size_t>(view.elements());
  for (size_t i = 0; i < count; ++i) {
    switch (view.type()) {
      case DType::kF32:
        out.push_back(view.f32()[i]);
        break;
      case DType::kF16:
        out.push_back(to_float(view.as_f16()[i]));
        break;
      case DType::kBF16:
        out.push_back(to_float(view.as_bf16()[i]));
        break;
      default: {
        const BlockQ8_0& block = static_cast<const BlockQ8_0*>(view.raw())[i / 32];
        out.push_back(to_float(block.scale) * block.quants[i % 32]);
      }
    }
  }
  return out;
}

// What a type may change: nothing, the last bits of each number, or half a step of its row.
void expect_close(const std::vector<float>& got, const std::vector<float>& want, DType type,
                  size_t cols, const std::string& name) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    float bound = 0.0f;
    if (type == DType::kF16) bound = std::abs(want[i]) * 0x1p-11f + 0x1p-25f;
    if (type == DType::kQ8_0) {
      const auto row = want.begin() + static_cast<long>(i / cols * cols);
      for (auto it = row; it != row + static_cast<long>(cols); ++it) {
        bound = std::max(bound, std::abs(*it) * (1.0f / 254 + 0x1p-11f));
      }
    }
    ASSERT_LE(std::abs(got[i] - want[i]), bound) << name << " [" << i << "]";
  }
}

struct Pair {
  const char* gguf;
  const char* directory;
  DType type;
};
class GgufGolden : public ::testing::TestWithParam<Pair> {};

// llama.cpp's layout and the directory it was converted from are the same checkpoint.
TEST_P(GgufGolden, EqualsTheDirectoryItWasMadeFrom) {
  const auto gguf = open(kData + "/gguf/" + GetParam().gguf);
  const auto hf = open(kData + "/models/" + GetParam().directory);
  ASSERT_TRUE(gguf && hf);
  std::vector<std::string> names = gguf->names();
  names.erase(std::remove(names.begin(), names.end(), "rope_freqs.weight"), names.end());
  EXPECT_EQ(names, hf->names());
  int typed = 0;
  // Shapes come from the safetensors headers: the directory is asked for what it holds.
  for (const std::string& name : names) {
    const auto shape = [&]() -> Shape {
      for (const char* part : {"model.safetensors", "model-00001-of-00002.safetensors",
                               "model-00002-of-00002.safetensors"}) {
        const auto map = MappedFile::open(kData + "/models/" + GetParam().directory + "/" + part);
        if (!map) continue;
        const auto table = read_safetensors(map->bytes(), part);
        if (table && table->contains(name)) return table->at(name).shape;
      }
      return {};
    }();
    const auto want = hf->tensor(name, shape);
    const auto got = gguf->tensor(name, shape);
    ASSERT_TRUE(want) << want.error().message;
    ASSERT_TRUE(got) << got.error().message;
    const DType type = got->view.type();
    EXPECT_EQ(gguf->check(name, shape)->type, type);
    typed += type == GetParam().type && shape.rank() == 2 ? 1 : 0;
    expect_close(values(got->view), values(want->view), type,
                 static_cast<size_t>(shape[shape.rank() - 1]), name);
  }
  EXPECT_GE(typed, 15);
}

TEST_P(GgufGolden, StatesTheSameConfig) {
  const auto gguf = open(kData + "/gguf/" + GetParam().gguf);
  const auto hf = open(kData + "/models/" + GetParam().directory);
  ASSERT_TRUE(gguf && hf);
  expect_same_config(gguf->config(), hf->config());
}

INSTANTIATE_TEST_SUITE_P(Files, GgufGolden,
                         ::testing::Values(Pair{"llama-f32.gguf", "llama", DType::kF32},
                                           Pair{"llama-q8_0.gguf", "llama", DType::kQ8_0},
                                           Pair{"llama3-bf16.gguf", "llama3-bf16", DType::kBF16},
                                           Pair{"qwen2-f16.gguf", "qwen2", DType::kF16},
                                           Pair{"qwen3-q8_0.gguf", "qwen3", DType::kQ8_0}),
                         [](const auto& param_info) {
                           std::string name = param_info.param.gguf;
                           std::replace_if(
                               name.begin(), name.end(), [](char c) { return !std::isalnum(c); },
                               '_');
                           return name;
                         });

TEST(GgufCheckpoint, TheGoldenOfLlama3IsScaled) {
  const auto llama3 = open(kData + "/gguf/llama3-bf16.gguf");
  ASSERT_TRUE(llama3 && llama3->has("rope_freqs.weight"));
  const float unscaled = std::pow(10000.0f, -30.0f / 32.0f);
  EXPECT_NEAR(llama3->config().rope_inv_freq.back(), unscaled / 8.0f, 1e-9f);
}

TEST(GgufNames, GoThereAndBack) {
  const std::pair<const char*, const char*> names[] = {
      {"token_embd.weight", "model.embed_tokens.weight"},
      {"output.weight", "lm_head.weight"},
      {"output_norm.weight", "model.norm.weight"},
      {"blk.12.attn_q.bias", "model.layers.12.self_attn.q_proj.bias"},
      {"blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"},
      {"blk.0.attn_k_norm.weight", "model.layers.0.self_attn.k_norm.weight"},
  };
  for (const auto& [gguf, hf] : names) {
    EXPECT_EQ(gguf_to_hf(gguf), hf);
    EXPECT_EQ(hf_to_gguf(hf), gguf);
  }
  for (const char* other : {"rope_freqs.weight", "blk.1.other.weight", "blk.", "blk.1", "x", ""}) {
    EXPECT_EQ(gguf_to_hf(other), other);
  }
}

TEST(GgufNames, RotaryRowsGoBack) {
  // Two heads of six rows of two bytes: the converter's order is 0 3 1 4 2 5 within each head.
  const std::string from = "0a3a1a4a2a5a0b3b1b4b2b5b";
  std::string to(from.size(), '?');
  restore_rotary_rows(reinterpret_cast<const std::byte*>(from.data()),
                      reinterpret_cast<std::byte*>(to.data()), 2, 6, 2);
  EXPECT_EQ(to, "0a1a2a3a4a5a0b1b2b3b4b5b");
}

// A whole tiny llama of our own: E 4, two heads of 2, vocabulary of 3.
GgufBuilder tiny(const char* architecture = "llama") {
  GgufBuilder b;
  const std::string a = std::string(architecture) + ".";
  b.text("general.architecture", architecture);
  b.u32(a + "context_length", 64).u32(a + "embedding_length", 4);
  b.u32(a + "feed_forward_length", 8).u32(a + "block_count", 1);
  b.u32(a + "attention.head_count", 2).f32(a + "attention.layer_norm_rms_epsilon", 1e-5f);
  return b;
}
GgufBuilder with_embedding(GgufBuilder b) {
  return b.tensor("token_embd.weight", {4, 3}, 0, std::string(48, '\0'));
}

Expected<std::unique_ptr<Checkpoint>> opened(const GgufBuilder& b) {
  static std::string bytes;  // lives as long as the last checkpoint that was opened
  bytes = b.build();
  return open_gguf_bytes(as_bytes(bytes), "f.gguf");
}

void refused(const GgufBuilder& b, ErrorCode code, std::string_view part) {
  const auto result = opened(b);
  ASSERT_FALSE(result) << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_TRUE(contains(result.error().message, "f.gguf: "));
  EXPECT_TRUE(contains(result.error().message, part));
}

TEST(GgufCheckpoint, NamesAreGgufs) {
  refused(with_embedding(tiny()).tensor("model.norm.weight", {4}, 0, std::string(16, '\0')),
          ErrorCode::kUnsupported,
          "has a tensor \"model.norm.weight\", which GGUF calls \"output_norm.weight\"");
}

TEST(GgufCheckpoint, DefaultsAndSpecialIds) {
  const auto plain = opened(with_embedding(tiny()));
  ASSERT_TRUE(plain) << plain.error().message;
  const ModelConfig& config = (*plain)->config();
  EXPECT_EQ(config.vocab_size, 3);
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 2);
  EXPECT_EQ(config.rope_theta, 10000.0);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(config.attention_bias || config.attention_output_bias);
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_TRUE(contains(message_of((*plain)->tokenizer_json()), "has no tokenizer"));

  GgufBuilder ids = with_embedding(tiny("qwen2"));
  ids.u32("tokenizer.ggml.bos_token_id", 0).u32("tokenizer.ggml.eos_token_id", 2);
  ids.u32("tokenizer.ggml.eot_token_id", 1).u32("tokenizer.ggml.eom_token_id", 2);
  const auto qwen = opened(ids);
  ASSERT_TRUE(qwen) << qwen.error().message;
  EXPECT_EQ((*qwen)->config().bos_token_id, 0);
  EXPECT_EQ((*qwen)->config().eos_token_ids, (std::vector<int32_t>{2, 1}));
  EXPECT_TRUE((*qwen)->config().attention_bias);
}

TEST(GgufCheckpoint, BiasesAreFoundByTheirTensors) {
  GgufBuilder b = with_embedding(tiny());
  b.tensor("blk.0.attn_q.bias", {4}, 0, std::string(16, '\0'));
  b.tensor("blk.0.attn_output.bias", {4}, 0, std::string(16, '\0'));
  const auto checkpoint = opened(b);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_TRUE((*checkpoint)->config().attention_bias);
  EXPECT_TRUE((*checkpoint)->config().attention_output_bias);
}

TEST(GgufCheckpoint, LinearScalingInBothSpellings) {
  const auto scaled = [](const char* key) {
    GgufBuilder b = with_embedding(tiny());
    b.f32(key, 4.0f);
    const auto checkpoint = opened(b);
    EXPECT_TRUE(checkpoint) << checkpoint.error().message;
    return checkpoint ? (*checkpoint)->config().rope_inv_freq.front() : 0.0f;
  };
  EXPECT_EQ(scaled("llama.rope.scaling.factor"), 0.25f);
  EXPECT_EQ(scaled("llama.rope.scale_linear"), 0.25f);
}

TEST(GgufCheckpoint, RefusesByName) {
  refused(GgufBuilder(), ErrorCode::kCorrupt, "general.architecture is missing");
  refused(GgufBuilder().text("general.architecture", "mamba"), ErrorCode::kUnsupported,
          "\"mamba\"; this build runs llama, qwen2 and qwen3");
  refused(tiny().text("general.type", "adapter"), ErrorCode::kUnsupported, "general.type");
  refused(tiny().u32("split.count", 3), ErrorCode::kUnsupported, "split.count is 3");
  refused(tiny().u32("llama.expert_count", 8), ErrorCode::kUnsupported, "llama.expert_count is 8");
  refused(tiny().f32("llama.attention.scale", 0.5f), ErrorCode::kUnsupported, "attention.scale");
  refused(tiny().u32("llama.attention.sliding_window", 64), ErrorCode::kUnsupported, "sliding");
  refused(tiny(), ErrorCode::kCorrupt, "token_embd.weight");
  refused(with_embedding(tiny()).u32("llama.attention.value_length", 4), ErrorCode::kUnsupported,
          "value_length is 4");
  refused(with_embedding(tiny()).u32("llama.rope.dimension_count", 1), ErrorCode::kUnsupported,
          "rope.dimension_count is 1");
  refused(with_embedding(tiny()).u32("llama.attention.key_length", 3), ErrorCode::kCorrupt,
          "head_dim is 3");
  refused(with_embedding(tiny()).u32("llama.attention.head_count_kv", 0), ErrorCode::kCorrupt,
          "llama.attention.head_count_kv");
  refused(with_embedding(tiny()).u32("llama.vocab_size", 4), ErrorCode::kCorrupt,
          "llama.vocab_size");
  refused(with_embedding(tiny()).text("llama.rope.scaling.type", "yarn"), ErrorCode::kUnsupported,
          "is \"yarn\"");
  refused(with_embedding(tiny()).f32("llama.rope.freq_base", std::nanf("")), ErrorCode::kCorrupt,
          "llama.rope.freq_base is nan");
  refused(with_embedding(tiny()).f32("llama.rope.scaling.factor", 1e-30f), ErrorCode::kCorrupt,
          "linear rope scaling factor");
  refused(with_embedding(tiny()).tensor("rope_freqs.weight", {1}, 0, std::string("\1\0\0\0", 4)),
          ErrorCode::kCorrupt, "from 1e-6 to 1e6");
  refused(with_embedding(tiny()).u32("tokenizer.ggml.eos_token_id", 3), ErrorCode::kCorrupt,
          "eos_token_id");
  refused(with_embedding(tiny()).tensor("blk.0.ffn_up.bias", {1}, 0, "abcd"),
          ErrorCode::kUnsupported, "MLP biases");
  refused(with_embedding(tiny()).tensor("rope_freqs.weight", {1}, 0, std::string(4, '\0')),
          ErrorCode::kCorrupt, "rope_freqs.weight");
  refused(with_embedding(tiny()).tensor("rope_freqs.weight", {2}, 0, std::string(8, 'x')),
          ErrorCode::kCorrupt, "rope_freqs.weight");
}

TEST(GgufCheckpoint, TensorsThatDoNotFitAreNamed) {
  GgufBuilder b = with_embedding(tiny());
  b.tensor("blk.0.attn_q.weight", {4, 5}, 0, std::string(80, '\0'));
  const auto checkpoint = opened(b);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_TRUE(
      contains(message_of((*checkpoint)->tensor("model.layers.0.self_attn.q_proj.weight", {4, 4})),
               "\"blk.0.attn_q.weight\" has the shape [5, 4]"));
  EXPECT_TRUE(
      contains(message_of((*checkpoint)->tensor("model.layers.0.self_attn.q_proj.weight", {5, 4})),
               "its heads need 4 rows"));
  EXPECT_TRUE(contains(message_of((*checkpoint)->tensor("lm_head.weight", {3, 4})),
                       "no tensor \"output.weight\""));
}

// A block begins with or ends in a 16-bit float and asks for no more: no tensor is copied for that.
TEST(GgufCheckpoint, QuantisedTensorsAreReadWhereTheyLie) {
  GgufBuilder b = with_embedding(tiny());
  const std::pair<uint32_t, size_t> types[] = {{8, 34}, {2, 18}, {12, 144}, {13, 176}, {14, 210}};
  const auto values = [](uint32_t type) { return type < 10 ? uint64_t{32} : uint64_t{256}; };
  for (const auto& [type, bytes] : types) {
    b.tensor(std::to_string(type), {values(type), 3}, type, std::string(3 * bytes, '\1'));
  }
  const auto checkpoint = opened(b);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  for (const auto& [type, bytes] : types) {
    const auto data =
        (*checkpoint)->tensor(std::to_string(type), {3, static_cast<int64_t>(values(type))});
    ASSERT_TRUE(data) << data.error().message;
    EXPECT_EQ(data->copy.bytes(), 0) << dtype_name(data->view.type());
    EXPECT_EQ(data->view.bytes(), static_cast<int64_t>(3 * bytes));
  }
}

TEST(GgufCheckpoint, FilesAreKnownByMagicAndName) {
  const TemporaryDirectory dir;
  const auto checkpoint = Checkpoint::open(dir.write("no_suffix", with_embedding(tiny()).build()));
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_TRUE((*checkpoint)->has("model.embed_tokens.weight"));
  EXPECT_TRUE(contains(message_of(Checkpoint::open(dir.write("empty.gguf", ""))), "at byte 0"));
  EXPECT_TRUE(contains(message_of(Checkpoint::open(dir.write("a.bin", "xyz"))), "is neither"));
}

}  // namespace
}  // namespace coppice::model
