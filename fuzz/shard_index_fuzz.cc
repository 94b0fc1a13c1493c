// model.safetensors.index.json: any text names files of its own directory only, or is refused in
// one line.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "fuzz_require.h"
#include "model/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto index = coppice::model::read_shard_index(text, "f");
  if (!index) {
    REQUIRE(index.error().message.starts_with("f: ") && index.error().message.size() < 2000);
    for (const char c : index.error().message) REQUIRE(c >= 0x20 && c < 0x7f);
    return 0;
  }
  for (const auto& [tensor, file] : *index) {
    REQUIRE(file.ends_with(".safetensors") && file != ".safetensors");
    for (const char c : file) REQUIRE(c != '/' && c != '\\' && c != '\0');
  }
  return 0;
}
