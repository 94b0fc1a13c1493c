// config.json and generation_config.json: any text is a checked config or one line that says why
// not.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "fuzz_require.h"
#include "model/config.h"

using coppice::model::ModelConfig;

namespace {

void require_one_line(const std::string& message) {
  REQUIRE(message.starts_with("f: ") && message.size() < 2000);
  for (const char c : message) REQUIRE(c >= 0x20 && c < 0x7f);
}

void require_sane(const ModelConfig& config) {
  REQUIRE(config.num_attention_heads % config.num_key_value_heads == 0);
  REQUIRE(config.rope_inv_freq.size() * 2 == static_cast<size_t>(config.head_dim));
  for (const float frequency : config.rope_inv_freq) {
    REQUIRE(std::isfinite(frequency) && frequency > 0);
  }
  for (const int32_t id : config.eos_token_ids) REQUIRE(id >= 0 && id < config.vocab_size);
  REQUIRE(config.bos_token_id >= -1 && config.bos_token_id < config.vocab_size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = coppice::model::read_config(text, "f");
  if (config) {
    require_sane(*config);
  } else {
    require_one_line(config.error().message);
  }
  ModelConfig base;
  base.vocab_size = 1000;
  const auto applied = coppice::model::apply_generation_config(text, "f", base);
  if (!applied) require_one_line(applied.error().message);
  return 0;
}
