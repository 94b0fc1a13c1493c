// What the hash of a base model covers, and what it does not.
#include "model/base_hash.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "model/gate_file.h"
#include "model/test_golden.h"

namespace coppice::model::testing {
namespace {

// A checkpoint of which one value is another's.
class OneValueChanged : public Checkpoint {
 public:
  OneValueChanged(const Checkpoint& base, std::string name, int64_t element)
      : base_(base), config_(base.config()), name_(std::move(name)), element_(element) {}
  const ModelConfig& config() const override { return config_; }
  Expected<TensorData> tensor(std::string_view name, const Shape& shape) const override {
    TRY(TensorData data, base_.tensor(name, shape));
    if (name != name_) return data;
    TRY(Buffer copy, Buffer::allocate(data.view.bytes()));
    std::memcpy(copy.data(), data.view.raw(), static_cast<size_t>(data.view.bytes()));
    const TensorView view = copy.view(data.view.type(), shape);
    view.f32()[element_ < 0 ? view.elements() + element_ : element_] += 0.25f;
    return TensorData{view, std::move(copy)};
  }
  Expected<Shape> shape(std::string_view name) const override { return base_.shape(name); }
  Expected<TensorForm> check(std::string_view name, const Shape& shape) const override {
    return base_.check(name, shape);
  }
  bool has(std::string_view name) const override { return base_.has(name); }
  std::vector<std::string> names() const override { return base_.names(); }
  const std::string& path() const override { return base_.path(); }
  std::string tokenizer_path() const override { return base_.tokenizer_path(); }
  Expected<std::string> tokenizer_json() const override { return base_.tokenizer_json(); }

  const Checkpoint& base_;
  ModelConfig config_;
  std::string name_;
  int64_t element_;
};

std::string hash_of(const Checkpoint& checkpoint) { return base_hash(checkpoint).value(); }

std::string hash_of(const std::string& data) {
  return hash_of(*Checkpoint::open(std::string(COPPICE_TEST_DATA) + "/" + data).value());
}

TEST(BaseHash, IsOfTheNumbersWhateverTheFile) {
  EXPECT_EQ(hash_of("models/llama"), hash_of("gguf/llama-f32.gguf"));
  EXPECT_EQ(hash_of("models/llama3-bf16"), hash_of("gguf/llama3-bf16.gguf"));
  std::set<std::string> all;
  for (const char* data : {"models/llama", "models/llama-bf16", "gguf/llama-q8_0.gguf",
                           "models/llama3", "models/qwen2", "models/qwen3"}) {
    const std::string hash = hash_of(data);
    EXPECT_EQ(hash.size(), 16u);
    EXPECT_TRUE(all.insert(hash).second) << data;
  }
}

TEST(BaseHash, CoversEveryTensorAndAllOfItsVectors) {
  const auto base = open_golden("qwen3");
  const std::string hash = hash_of(*base);
  EXPECT_EQ(hash, hash_of(*base));
  for (const std::string& name : base->names()) {
    const bool vector = base->shape(name)->rank() == 1;
    for (const int64_t element : {0, 1, vector ? 5 : 0, -1}) {
      EXPECT_NE(hash, hash_of(OneValueChanged(*base, name, element))) << name << " " << element;
    }
  }
  // A row between the sampled ones, of many, is what it leaves out.
  const Shape embedding = base->shape("model.embed_tokens.weight").value();
  ASSERT_GT(embedding[0], 2 * BaseHash::kSampledRows);
  EXPECT_EQ(hash, hash_of(OneValueChanged(*base, "model.embed_tokens.weight", embedding[1])));
}

TEST(BaseHash, CoversTheConfig) {
  const auto base = open_golden("llama");
  const std::string hash = hash_of(*base);
  const auto changed = [&](const std::function<void(ModelConfig&)>& change) {
    OneValueChanged other(*base, "", 0);
    change(other.config_);
    return hash_of(other);
  };
  EXPECT_EQ(changed([](ModelConfig& c) { c.max_position_embeddings *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.rope_theta *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.rms_norm_eps *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.architecture = Architecture::kQwen2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.num_attention_heads *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.qk_norm = true; }), hash);
}

TEST(BaseHash, LeavesOutWhatTheNetworkDoes) {
  ModelConfig config = open_golden("llama3")->config();
  ASSERT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(BaseHash(config).covers("lm_head.weight"));
  EXPECT_FALSE(BaseHash(config).covers("model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(BaseHash(config).covers("rope_freqs.weight"));
  config.tie_word_embeddings = false;
  EXPECT_TRUE(BaseHash(config).covers("lm_head.weight"));
}

}  // namespace
}  // namespace coppice::model::testing
