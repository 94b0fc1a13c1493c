// What:    what a gate file says of its gate: kind, sizes, tiers and the calibration report; as a
//          struct and as the JSON text that stands in the file.
// Owns:    plain values.
// Threads: pure functions.
// Fails:   read_gate_header: kCorrupt or kUnsupported naming file, key, its value and what works.
//
// Whoever trains gates uses this too: it needs no tensor of ours, no backend and no checkpoint.
//
//   {"version": 1, "kind": "causal", "hidden_size": 256, "num_hidden_layers": 4,
//    "num_key_value_heads": 2, "heads": 2, "head_dim": 16, "reach": 16, "rope_theta": 100000.0,
//    "window": 32, "sinks": 4, "decode_gate": true,
//    "tiers": {"mild":   {"threshold": -0.5, "keep": 0.5,   "loss": 0.1},
//              "normal": {"threshold": 0.7,  "keep": 0.25,  "loss": 0.3},
//              "hard":   {"threshold": 1.9,  "keep": 0.125, "loss": 2.0}},
//    "base": "89abcdef01234567",
//    "calibration": [{"family": "needle", "tier": "mild", "keep": 0.48, "full": 0.99,
//                     "gated": 0.98, "samples": 200, "held_out": false}],
//    "note": "for people; may be missing"}
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coppice/error.h"

namespace coppice::model {

// What a decision on a token reads beside the token itself.
enum class GateKind {
  kPoint,   // nothing
  kCausal,  // the last `reach` tokens, its own among them
  kGlobal,  // the whole prompt, what follows included: for evaluation alone
  kBlock,   // all up to the end of its block of `reach` tokens: for evaluation alone
};
std::string_view gate_kind_name(GateKind kind);  // "point", ...

enum class GateTier { kMild, kNormal, kHard };
inline constexpr std::array kGateTiers{GateTier::kMild, GateTier::kNormal, GateTier::kHard};
std::string_view gate_tier_name(GateTier tier);  // "mild", ...

struct TierSetting {
  float threshold = 0;  // of the logit: what reaches it is kept
  double keep = 1;      // share of slots kept, as calibrated
  double loss = 0;      // points of accuracy, as calibrated; less than 0: a gain
  bool operator==(const TierSetting&) const = default;
};

// One line of the calibration report: a family of tasks under a tier.
struct CalibrationLine {
  std::string family;
  GateTier tier = GateTier::kMild;
  double keep = 1;             // share of slots kept
  double full = 0, gated = 0;  // share answered exactly, without the gate and under it
  int32_t samples = 0;
  bool held_out = false;  // the gate was not trained on this family
  bool operator==(const CalibrationLine&) const = default;
};

struct GateHeader {
  GateKind kind = GateKind::kPoint;
  int32_t hidden_size = 0;          // E of the base
  int32_t num_hidden_layers = 0;    // L
  int32_t num_key_value_heads = 0;  // Hkv
  // Of the gate's own attention; all 0 where it has none (point).
  int32_t heads = 0;      // n'
  int32_t head_dim = 0;   // d', even
  int32_t reach = 0;      // causal, block: see GateKind
  double rope_theta = 0;  // causal, block; the global gate knows no positions
  // A row sees the last `window` positions and the first `sinks` whatever the gate says.
  int32_t window = 1;
  int32_t sinks = 0;
  bool decode_gate = true;  // generated tokens are decided too; else they are kept
  std::array<TierSetting, kGateTiers.size()> tiers;  // in the order of kGateTiers
  std::string base;                                  // base_hash.h
  std::vector<CalibrationLine> calibration;
  std::string note;  // for people: what the base is where it was made with the gate

  const TierSetting& tier(GateTier t) const { return tiers[static_cast<size_t>(t)]; }
  int32_t width() const { return heads * head_dim; }  // r' = n' d'
  bool operator==(const GateHeader&) const = default;
};

struct GateLimits {
  static constexpr int32_t kCausalReach = 64;
  static constexpr int32_t kBlockReach = 512;
  static constexpr int32_t kHeads = 64;
  static constexpr int32_t kHeadDim = 128;
  static constexpr int32_t kWidth = 1024;
  static constexpr int32_t kWindow = 512;
  static constexpr int32_t kSinks = 64;
  static constexpr double kThreshold = 1000;
};

// The key of __metadata__ under which the JSON text stands.
inline constexpr const char* kGateMetadataKey = "coppice_gate";
// `where` names the file in errors. Lines of the calibration report may say more than is read.
Expected<GateHeader> read_gate_header(const std::string& json, const std::string& where);
// What read_gate_header reads; it tells whether the header is sound.
std::string gate_header_json(const GateHeader& header);

}  // namespace coppice::model
