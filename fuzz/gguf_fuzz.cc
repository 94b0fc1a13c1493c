// A .gguf file: any bytes are a checkpoint whose tensors can be read whole, or one line that says
// why not; its tokenizer is JSON text or another such line.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "fuzz_require.h"
#include "model/gguf_checkpoint.h"
#include "model/gguf_names.h"
#include "model/gguf_tokenizer.h"

using namespace coppice;  // NOLINT: a fuzzer is one function

namespace {

void require_one_line(const std::string& message) {
  REQUIRE(message.starts_with("f: "));
  for (const char c : message) REQUIRE(c >= 0x20 && c < 0x7f);
}

void read_tensors(const model::GgufFile& file, const model::Checkpoint& checkpoint) {
  uint64_t sum = 0;
  for (const auto& [name, entry] : file.tensors()) {
    const std::string hf = model::gguf_to_hf(name);
    const auto form = checkpoint.check(hf, entry.shape);
    const auto tensor = checkpoint.tensor(hf, entry.shape);
    REQUIRE(form.has_value() == tensor.has_value());
    if (!tensor) {
      require_one_line(tensor.error().message);
      continue;
    }
    REQUIRE(tensor->view.type() == form->type);
    REQUIRE(tensor->copy.bytes() == form->copy_bytes);
    const auto* bytes = static_cast<const uint8_t*>(tensor->view.raw());
    for (int64_t i = 0; i < tensor->view.bytes(); ++i) sum += bytes[i];
  }
  REQUIRE(sum <= 255 * static_cast<uint64_t>(file.bytes().size()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> bytes(data, size);
  const auto file = model::GgufFile::read(bytes, "f");
  if (!file) {
    require_one_line(file.error().message);
    return 0;
  }
  const auto checkpoint = model::open_gguf_bytes(bytes, "f");
  if (!checkpoint) require_one_line(checkpoint.error().message);
  // The tokenizer stands on its own: most files that fail as a model still have one.
  const auto tokenizer =
      checkpoint ? (*checkpoint)->tokenizer_json() : model::gguf_tokenizer_json(*file, 1 << 20);
  if (!tokenizer) require_one_line(tokenizer.error().message);
  if (!checkpoint) return 0;
  REQUIRE((*checkpoint)->names().size() == file->tensors().size());
  REQUIRE((*checkpoint)->has("lm_head.weight") != (*checkpoint)->config().tie_word_embeddings);
  for (const float frequency : (*checkpoint)->config().rope_inv_freq) {
    REQUIRE(std::isfinite(frequency) && frequency > 0);
  }
  read_tensors(*file, **checkpoint);
  return 0;
}
