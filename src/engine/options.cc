#include "coppice/options.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <limits>

#include "engine/free_memory.h"

namespace coppice {
namespace {

constexpr int64_t kMaxCtx = int64_t{1} << 24;
constexpr int32_t kMaxThreads = 1024;
constexpr int32_t kMaxRows = 1 << 16;

Status in_range(std::string_view flag, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return {};
  return fail(ErrorCode::kInvalidArgument, std::string(flag) + " is " + std::to_string(value) +
                                               "; it takes " + std::to_string(least) + " to " +
                                               std::to_string(most));
}

}  // namespace

int64_t available_memory() { return engine::free_memory(); }

Expected<int64_t> parse_size(std::string_view text, std::string_view flag) {
  const auto wrong = [&] {
    return fail(ErrorCode::kInvalidArgument,
                std::string(flag) + " is \"" + std::string(text) +
                    "\"; it takes bytes, or a number with K, M or G (powers of 1024), as in 512M");
  };
  std::string_view digits = text;
  double unit = 1.0;
  if (!digits.empty()) {
    switch (digits.back()) {
      case 'K':
      case 'k':
        unit = 1024.0;
        break;
      case 'M':
      case 'm':
        unit = 1024.0 * 1024.0;
        break;
      case 'G':
      case 'g':
        unit = 1024.0 * 1024.0 * 1024.0;
        break;
      default:
        break;
    }
    if (unit != 1.0) digits.remove_suffix(1);
  }
  double number = 0.0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number,
                                            std::chars_format::fixed);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size()) {
    return wrong();
  }
  const double bytes = number * unit;
  // 2^53: beyond it a double no longer counts bytes.
  if (!(bytes >= 1.0) || bytes > 9007199254740992.0) return wrong();
  return static_cast<int64_t>(bytes);
}

std::string format_size(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024.0 && unit < 4) {
    value /= 1024.0;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return text;
}

Expected<WeightType> parse_weight_type(std::string_view text) {
  if (text == "bf16") return WeightType::kBF16;
  if (text == "f32") return WeightType::kF32;
  return fail(ErrorCode::kInvalidArgument,
              "--dtype is \"" + std::string(text) + "\"; it takes bf16 or f32");
}

Expected<WeightStorage> parse_weight_storage(std::string_view text) {
  if (text == "auto") return WeightStorage::kAuto;
  if (text == "int8") return WeightStorage::kInt8;
  return fail(ErrorCode::kInvalidArgument,
              "--weights is \"" + std::string(text) + "\"; it takes auto or int8");
}

Expected<KvType> parse_kv_type(std::string_view text) {
  if (text == "bf16") return KvType::kBF16;
  if (text == "f32") return KvType::kF32;
  if (text == "int8") return KvType::kInt8;
  return fail(ErrorCode::kInvalidArgument,
              "--kv-type is \"" + std::string(text) + "\"; it takes bf16, f32 or int8");
}

Expected<AttentionPartition> parse_partition(std::string_view text) {
  if (text == "two-phase") return AttentionPartition::kTwoPhase;
  if (text == "per-sequence") return AttentionPartition::kPerSequence;
  return fail(ErrorCode::kInvalidArgument,
              "--attention is \"" + std::string(text) + "\"; it takes two-phase or per-sequence");
}

Expected<KvTier> parse_kv_tier(std::string_view text, std::string_view field) {
  for (const KvTier tier : {KvTier::kOff, KvTier::kMild, KvTier::kNormal, KvTier::kHard}) {
    if (text == kv_tier_name(tier)) return tier;
  }
  return fail(ErrorCode::kInvalidArgument, std::string(field) + " is \"" + std::string(text) +
                                               "\"; it takes off, mild, normal or hard");
}

Expected<KvThinning> parse_kv_thinning(std::string_view text, std::string_view field) {
  if (text == "allow") return KvThinning::kAllow;
  if (text == "refuse") return KvThinning::kRefuse;
  return fail(ErrorCode::kInvalidArgument,
              std::string(field) + " is \"" + std::string(text) + "\"; it takes allow or refuse");
}

std::string_view kv_tier_name(KvTier tier) {
  switch (tier) {
    case KvTier::kOff:
      return "off";
    case KvTier::kMild:
      return "mild";
    case KvTier::kNormal:
      return "normal";
    case KvTier::kHard:
      return "hard";
  }
  return "off";
}

Status validate(const EngineOptions& options) {
  if (options.model.empty()) {
    return fail(ErrorCode::kInvalidArgument, "--model is empty; it takes a directory or a .gguf");
  }
  if (options.ctx != 0) TRY_STATUS(in_range("--ctx", options.ctx, 2, kMaxCtx));
  TRY_STATUS(in_range("--threads", options.threads, 0, kMaxThreads));
  TRY_STATUS(in_range("--max-live", options.max_live, 1, 4096));
  // One row beside the decodes, so that a prefill always advances.
  TRY_STATUS(in_range("--max-rows", options.max_rows, options.max_live + 1, kMaxRows));
  TRY_STATUS(in_range("--slice", options.slice, 1, kMaxRows));
  TRY_STATUS(in_range("--max-queued", options.max_queued, 1, 1 << 24));
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  if (options.memory) TRY_STATUS(in_range("--memory", *options.memory, 1, kMost));
  if (options.kv_budget) TRY_STATUS(in_range("--kv-budget", *options.kv_budget, 1, kMost));
  if (options.kv_budget_limit) {
    TRY_STATUS(in_range("kv_budget_limit", *options.kv_budget_limit, options.kv_budget.value_or(1),
                        kMost));
  }
  if (options.gate.empty() && options.kv_tier.value_or(KvTier::kOff) != KvTier::kOff) {
    return fail(ErrorCode::kInvalidArgument, "--kv-tier " +
                                                 std::string(kv_tier_name(*options.kv_tier)) +
                                                 " needs a gate; name one with --gate");
  }
  if (!(options.gate_max_loss >= 0.0 && options.gate_max_loss <= 100.0)) {
    return fail(ErrorCode::kInvalidArgument, "--gate-max-loss is " +
                                                 std::to_string(options.gate_max_loss) +
                                                 "; it takes 0 to 100 points");
  }
  if (options.isa != "auto" && options.isa != "avx512bf16" && options.isa != "avx512" &&
      options.isa != "avx2") {
    return fail(ErrorCode::kInvalidArgument,
                "--isa is \"" + options.isa + "\"; it takes auto, avx512bf16, avx512 or avx2");
  }
  return {};
}

}  // namespace coppice
