// A .safetensors file: any bytes are a table of tensors that lie in the file, or one line that says
// why not.
#include <cstddef>
#include <cstdint>
#include <span>

#include "fuzz_require.h"
#include "model/safetensors.h"

using namespace coppice;  // NOLINT: a fuzzer is one function

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span<const uint8_t> file(data, size);
  const auto table = model::read_safetensors(file, "f");
  if (!table) {
    REQUIRE(table.error().message.starts_with("f: "));
    for (const char c : table.error().message) REQUIRE(c >= 0x20 && c < 0x7f);
    return 0;
  }
  uint64_t sum = 0;
  for (const auto& [name, entry] : *table) {
    const auto found = model::find_tensor(*table, name, entry.shape, "f");
    REQUIRE(found.has_value() == entry.unreadable.empty());
    if (!found) continue;
    const auto tensor = model::tensor_data(file, entry);
    REQUIRE(tensor && tensor->view.bytes() == entry.end - entry.begin);
    REQUIRE(reinterpret_cast<uintptr_t>(tensor->view.raw()) %
                static_cast<uintptr_t>(model::dtype_alignment(entry.type)) ==
            0);
    const auto* bytes = static_cast<const uint8_t*>(tensor->view.raw());
    for (int64_t i = 0; i < tensor->view.bytes(); ++i) sum += bytes[i];
  }
  REQUIRE(sum <= 255 * static_cast<uint64_t>(size));
  return 0;
}
