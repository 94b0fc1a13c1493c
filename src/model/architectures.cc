#include "model/architectures.h"

#include <array>

#include "model/decoder.h"

namespace coppice::model {
namespace {

// Llama and its kin differ in what their config says (biases, norms of q and k), not in the body.
constexpr std::array kArchitectures{
    ArchitectureEntry{Architecture::kLlama, "Llama", check_decoder, load_decoder},
    ArchitectureEntry{Architecture::kQwen2, "Qwen2", check_decoder, load_decoder},
    ArchitectureEntry{Architecture::kQwen3, "Qwen3", check_decoder, load_decoder},
};

}  // namespace

const ArchitectureEntry& architecture_entry(Architecture architecture) {
  for (const ArchitectureEntry& entry : kArchitectures) {
    if (entry.architecture == architecture) return entry;
  }
  CHECK(!"every architecture has a line in the table");
}

}  // namespace coppice::model
