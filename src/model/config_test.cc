#include "model/config.h"

#include <bit>
#include <cstdlib>
#include <string>

#include <nlohmann/json.hpp>

#include "model/test_files.h"

namespace coppice::model {
namespace {

using nlohmann::json;

json llama() {
  return json::parse(R"({"architectures":["LlamaForCausalLM"],"model_type":"llama",
    "hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":4,
    "num_key_value_heads":2,"vocab_size":300,"max_position_embeddings":512,"rms_norm_eps":1e-5,
    "hidden_act":"silu","rope_theta":10000.0,"rope_scaling":null,"tie_word_embeddings":false,
    "bos_token_id":1,"eos_token_id":2})");
}

json changed(json config, const char* patch) {
  config.merge_patch(json::parse(patch));
  return config;
}

Expected<ModelConfig> read(const json& config) { return read_config(config.dump(), "c.json"); }

void refused(const json& config, ErrorCode code, std::string_view part) {
  const auto result = read(config);
  ASSERT_FALSE(result) << part;
  EXPECT_EQ(result.error().code, code) << result.error().message;
  EXPECT_TRUE(contains(result.error().message, "c.json: "));
  EXPECT_TRUE(contains(result.error().message, part));
  EXPECT_EQ(result.error().message.find('\n'), std::string::npos);
}

TEST(Config, ReadsLlama) {
  const auto config = read(llama());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->architecture, Architecture::kLlama);
  EXPECT_EQ(config->head_dim, 16);
  EXPECT_EQ(config->num_key_value_heads, 2);
  EXPECT_EQ(config->rms_norm_eps, 1e-5);
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->eos_token_ids, std::vector<int32_t>{2});
  EXPECT_FALSE(config->attention_bias || config->attention_output_bias || config->qk_norm ||
               config->tie_word_embeddings);
  ASSERT_EQ(config->rope_inv_freq.size(), 8u);
  EXPECT_EQ(config->rope_inv_freq[0], 1.0f);
}

TEST(Config, DefaultsAreTheArchitectures) {
  json config = llama();
  for (const char* key : {"num_key_value_heads", "rope_theta", "rope_scaling", "hidden_act",
                          "bos_token_id", "eos_token_id", "tie_word_embeddings"}) {
    config.erase(key);
  }
  const auto read_llama = read(config);
  ASSERT_TRUE(read_llama) << read_llama.error().message;
  EXPECT_EQ(read_llama->num_key_value_heads, 4);
  EXPECT_EQ(read_llama->bos_token_id, -1);
  EXPECT_TRUE(read_llama->eos_token_ids.empty());

  config["architectures"] = {"Qwen2ForCausalLM"};
  config["num_key_value_heads"] = nullptr;
  const auto qwen2 = read(config);
  ASSERT_TRUE(qwen2) << qwen2.error().message;
  EXPECT_TRUE(qwen2->attention_bias);
  EXPECT_FALSE(qwen2->attention_output_bias);

  config["architectures"] = {"Qwen3ForCausalLM"};
  const auto qwen3 = read(config);
  ASSERT_TRUE(qwen3) << qwen3.error().message;
  EXPECT_EQ(qwen3->head_dim, 128);
  EXPECT_TRUE(qwen3->qk_norm);
  EXPECT_FALSE(qwen3->attention_bias);

  config.erase("architectures");
  const auto by_type = read(config);
  ASSERT_TRUE(by_type) << by_type.error().message;
  EXPECT_EQ(by_type->architecture, Architecture::kLlama);
}

TEST(Config, AttentionBiasCoversTheOutputToo) {
  const auto biased = read(changed(llama(), R"({"attention_bias":true})"));
  ASSERT_TRUE(biased) << biased.error().message;
  EXPECT_TRUE(biased->attention_bias && biased->attention_output_bias);
}

TEST(Config, MistralOnlyWithFullAttention) {
  json mistral = changed(llama(), R"({"architectures":["MistralForCausalLM"]})");
  refused(mistral, ErrorCode::kUnsupported, "sliding_window");
  mistral["sliding_window"] = 4096;
  refused(mistral, ErrorCode::kUnsupported, "sliding_window is 4096");
  mistral["sliding_window"] = nullptr;
  const auto config = read(mistral);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->architecture, Architecture::kLlama);
}

TEST(Config, RefusesWhatWouldChangeTheArithmetic) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"architectures":["MambaForCausalLM"]})", "this build runs LlamaForCausalLM, Mistral"},
      {R"({"hidden_act":"gelu"})", "hidden_act is \"gelu\""},
      {R"({"mlp_bias":true})", "mlp_bias"},
      {R"({"use_sliding_window":true})", "use_sliding_window"},
      {R"({"layer_types":["full_attention","sliding_attention"]})", "layer_types"},
      {R"({"quantization_config":{"bits":4}})", "quantization_config"},
      {R"({"partial_rotary_factor":0.5})", "partial_rotary_factor"},
      {R"({"rope_scaling":{"rope_type":"yarn","factor":4.0}})", "rope_type is \"yarn\""},
      {R"({"rope_scaling":{"type":"dynamic","factor":4.0}})", "type is \"dynamic\""},
      {R"({"rope_parameters":{"full_attention":{"rope_theta":1.0}}})", "rope_parameters"},
      {R"({"rope_parameters":{"partial_rotary_factor":0.25}})", "partial_rotary_factor is 0.25"},
  };
  for (const auto& [patch, part] : cases) {
    refused(changed(llama(), patch), ErrorCode::kUnsupported, part);
  }
}

TEST(Config, EveryNumberHasBounds) {
  for (const char* key : {"hidden_size", "intermediate_size", "num_hidden_layers",
                          "num_attention_heads", "vocab_size", "max_position_embeddings"}) {
    json config = llama();
    config.erase(key);
    refused(config, ErrorCode::kCorrupt, std::string(key) + " is missing");
    for (const char* bad : {"0", "-1", "1.5", "\"4\"", "4000000000", "18446744073709551615"}) {
      config[key] = json::parse(bad);
      refused(config, ErrorCode::kCorrupt, std::string(key) + " is " + bad);
    }
  }
  for (const char* bad : {"0", "1", "7", "-2", "1026", "true"}) {
    json config = llama();
    config["head_dim"] = json::parse(bad);
    refused(config, ErrorCode::kCorrupt, std::string("head_dim is ") + bad);
  }
  for (const char* key : {"rms_norm_eps", "rope_theta"}) {
    for (const char* bad : {"0", "-1e-5", "1e300", "\"x\""}) {
      json config = llama();
      config[key] = json::parse(bad);
      refused(config, ErrorCode::kCorrupt, std::string(key) + " is ");
    }
  }
  refused(changed(llama(), R"({"rope_theta":0.5})"), ErrorCode::kCorrupt, "rope_theta is 0.5");
  // Numbers that are more than 0 but not as floats.
  refused(changed(llama(), R"({"rms_norm_eps":1e-300})"), ErrorCode::kCorrupt, "from 1e-12 to 1.0");
  refused(changed(llama(), R"({"rope_scaling":{"type":"linear","factor":1e-300}})"),
          ErrorCode::kCorrupt, "rope_scaling: factor is 1e-300; it must be a number from 1e-06");
  refused(changed(llama(), R"({"num_attention_heads":6})"), ErrorCode::kCorrupt, "hidden_size");
  refused(changed(llama(), R"({"num_key_value_heads":3})"), ErrorCode::kCorrupt, "multiple of 3");
  refused(changed(llama(), R"({"eos_token_id":300})"), ErrorCode::kCorrupt, "eos_token_id is 300");
  refused(changed(llama(), R"({"eos_token_id":[1,-1]})"), ErrorCode::kCorrupt, "[1,-1]");
  refused(changed(llama(), R"({"bos_token_id":"a"})"), ErrorCode::kCorrupt, "bos_token_id");
  refused(changed(llama(), R"({"tie_word_embeddings":1})"), ErrorCode::kCorrupt, "true or false");
  refused(changed(llama(), R"({"architectures":[]})"), ErrorCode::kCorrupt, "architectures is []");
  refused(changed(llama(), R"({"rope_scaling":7})"), ErrorCode::kCorrupt, "rope_scaling is 7");
}

TEST(Config, TextMustBeOneObject) {
  EXPECT_TRUE(contains(message_of(read_config("", "c.json")), "c.json: "));
  EXPECT_TRUE(contains(message_of(read_config("[]", "c.json")), "is not a JSON object"));
  EXPECT_TRUE(contains(message_of(read_config("{}", "c.json")), "model_type is missing"));
  EXPECT_TRUE(contains(message_of(read_config(R"({"a":1,"a":1})", "c.json")), "appears twice"));
}

TEST(Config, OldAndNewSpellingsOfRopeAgree) {
  const char* numbers = R"("factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,)"
                        R"("original_max_position_embeddings":64)";
  json old = llama();
  old["rope_theta"] = 500000.0;
  old["rope_scaling"] = json::parse(std::string(R"({"rope_type":"llama3",)") + numbers + "}");
  json fresh = llama();
  fresh.erase("rope_theta");
  fresh["rope_parameters"] =
      json::parse(std::string(R"({"rope_type":"llama3","rope_theta":500000.0,)") + numbers + "}");
  const auto first = read(old);
  const auto second = read(fresh);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->rope_theta, 500000.0);
  EXPECT_EQ(first->rope_inv_freq, second->rope_inv_freq);
  const auto plain = read(changed(llama(), R"({"rope_theta":500000.0})"));
  ASSERT_TRUE(plain);
  EXPECT_EQ(first->rope_inv_freq.front(), plain->rope_inv_freq.front());
  EXPECT_EQ(first->rope_inv_freq.back(), plain->rope_inv_freq.back() / 8.0f);

  old["rope_scaling"]["high_freq_factor"] = 1.0;
  refused(old, ErrorCode::kCorrupt, "high_freq_factor");
  old["rope_scaling"].erase("factor");
  refused(old, ErrorCode::kCorrupt, "rope_scaling: factor is missing");
}

// Bit for bit, but where PyTorch's vectorised pow is one unit off: one of these 312.
TEST(Config, FrequenciesEqualTransformers) {
  const auto text = read_file(COPPICE_TEST_DATA "/rope.json");
  ASSERT_TRUE(text) << text.error().message;
  const json cases = json::parse(*text);
  ASSERT_GE(cases.size(), 7u);
  int one_off = 0;
  for (const json& golden : cases) {
    const auto config = read(golden["config"]);
    ASSERT_TRUE(config) << config.error().message;
    ASSERT_EQ(config->rope_inv_freq.size(), golden["bits"].size());
    for (size_t i = 0; i < config->rope_inv_freq.size(); ++i) {
      const auto want = golden["bits"][i].get<int32_t>();
      const int32_t off = std::bit_cast<int32_t>(config->rope_inv_freq[i]) - want;
      EXPECT_LE(std::abs(off), 1) << golden["config"]["rope_parameters"] << " [" << i << "]";
      one_off += off != 0 ? 1 : 0;
    }
  }
  EXPECT_LE(one_off, 1);
}

TEST(Config, LinearScalingDividesEveryFrequency) {
  const auto plain = read(llama());
  const auto scaled = read(changed(llama(), R"({"rope_scaling":{"type":"linear","factor":3.0}})"));
  ASSERT_TRUE(plain && scaled);
  for (size_t i = 0; i < plain->rope_inv_freq.size(); ++i) {
    EXPECT_EQ(scaled->rope_inv_freq[i], plain->rope_inv_freq[i] / 3.0f);
  }
}

TEST(Config, GenerationConfigReplacesTheSpecialIds) {
  auto config = read(llama());
  ASSERT_TRUE(config);
  ASSERT_TRUE(apply_generation_config(R"({"eos_token_id":[5,6]})", "g.json", *config));
  EXPECT_EQ(config->eos_token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_EQ(config->bos_token_id, 1);
  ASSERT_TRUE(apply_generation_config("{}", "g.json", *config));
  EXPECT_EQ(config->eos_token_ids, (std::vector<int32_t>{5, 6}));
  EXPECT_TRUE(contains(message_of(apply_generation_config("7", "g.json", *config)), "g.json"));
}

}  // namespace
}  // namespace coppice::model
