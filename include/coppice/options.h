// What:    how an engine is set up: model, memory, partition and the limits of a step, checked.
// Owns:    plain values.
// Threads: any.
// Fails:   validate and the parsers: kInvalidArgument or kUnsupported naming the flag and what
// works.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "coppice/error.h"

namespace coppice {

enum class WeightType { kBF16, kF32 };
// Of plain matrices: as the file has them, or Q8_0 (groups of 32, symmetric), made at load.
enum class WeightStorage { kAuto, kInt8 };
enum class KvType { kBF16, kF32, kInt8 };
enum class AttentionPartition { kTwoPhase, kPerSequence };
// How much of keys and values a gate drops; off: nothing, as if there were none.
enum class KvTier { kOff, kMild, kNormal, kHard };
// Whether a request may be served from prefixes that memory pressure made thinner than its tier.
enum class KvThinning { kRefuse, kAllow };

// Field = flag of the same name (docs: interfaces). 0 or empty means "choose".
struct EngineOptions {
  std::string model;    // a Hugging Face directory or a .gguf file
  int64_t ctx = 0;      // most tokens of a sequence; 0: what the model allows
  int32_t threads = 0;  // 0: one per physical core
  WeightType dtype = WeightType::kBF16;
  WeightStorage weights = WeightStorage::kAuto;
  KvType kv_type = KvType::kBF16;
  std::optional<int64_t> memory;     // bytes for everything but mapped weights
  std::optional<int64_t> kv_budget;  // bytes of pages; default a quarter of available memory
  // How far set_budget may raise the budget at run time; default kv_budget itself.
  std::optional<int64_t> kv_budget_limit;
  AttentionPartition attention = AttentionPartition::kTwoPhase;
  std::string isa = "auto";     // auto | avx512bf16 | avx512 | avx2
  std::string backend = "cpu";  // "ref" is for tests
  int32_t max_rows = 512;       // rows of a step: decodes first, then prefill slices
  int32_t slice = 512;          // most prefill rows of one sequence in a step
  int32_t max_live = 64;        // sequences in the cache at once
  int32_t max_queued = 4096;    // requests not yet finished; beyond: kOverloaded
  // A gate file, or policy:NAME[,key=value...]; empty: requests run in tier off alone.
  std::string gate;
  std::optional<KvTier>
      kv_tier;                 // of requests that bring none; default normal with a gate, else off
  double gate_max_loss = 2.0;  // points: tiers calibrated to lose more are refused, ...
  bool gate_force = false;     // ... unless forced, as are gates of another base
  bool prompt_logits = false;  // requests may ask for the logits of prompt rows
  bool profile = false;        // count where the steps' time goes
  std::optional<uint64_t> seed;  // of requests that bring none; default: drawn at open
};

Status validate(const EngineOptions& options);

// "512", "64K", "1.5G": bytes; K, M and G are powers of 1024. `flag` is named in errors.
Expected<int64_t> parse_size(std::string_view text, std::string_view flag);
// 1610612736 -> "1.5 GiB".
std::string format_size(int64_t bytes);

Expected<WeightType> parse_weight_type(std::string_view text);
Expected<WeightStorage> parse_weight_storage(std::string_view text);
Expected<KvType> parse_kv_type(std::string_view text);
Expected<AttentionPartition> parse_partition(std::string_view text);
// `field` is named in errors.
Expected<KvTier> parse_kv_tier(std::string_view text, std::string_view field);
std::string_view kv_tier_name(KvTier tier);  // "off", ...
Expected<KvThinning> parse_kv_thinning(std::string_view text, std::string_view field);

// Bytes that this process could still take: the system's figure, or that of its control group or
// one above if lower.
int64_t available_memory();

// done, total in bytes of weights; called on the thread that opens the engine.
using LoadCallback = std::function<void(int64_t done, int64_t total)>;

}  // namespace coppice
