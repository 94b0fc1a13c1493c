#include "model/gate_header.h"

#include <algorithm>
#include <utility>

#include "model/config.h"
#include "model/json_keys.h"
#include "model/strict_json.h"

namespace coppice::model {
namespace {

using nlohmann::json;

constexpr int32_t kVersion = 1;
constexpr size_t kBaseDigits = 16;
constexpr size_t kMostFamilyBytes = 64, kMostNoteBytes = 256;
constexpr int64_t kMostSamples = 1'000'000'000;

// What a kind's own attention may look like.
struct KindRow {
  GateKind kind;
  std::string_view name;
  bool attends;         // has heads
  int32_t least_reach;  // 0: knows neither reach ...
  int32_t most_reach;
};
constexpr std::array<KindRow, 4> kKinds{{
    {GateKind::kPoint, "point", false, 0, 0},
    {GateKind::kCausal, "causal", true, 1, GateLimits::kCausalReach},
    {GateKind::kGlobal, "global", true, 0, 0},
    {GateKind::kBlock, "block", true, 1, GateLimits::kBlockReach},
}};
constexpr std::array<std::string_view, kGateTiers.size()> kTierNames{"mild", "normal", "hard"};

const KindRow& row_of(GateKind kind) { return kKinds[static_cast<size_t>(kind)]; }

Expected<const KindRow*> read_kind(const JsonKeys& keys) {
  TRY(const std::string name, keys.text("kind", ""));
  for (const KindRow& row : kKinds) {
    if (row.name == name) return &row;
  }
  return keys.wrong("kind", "\"point\", \"causal\", \"global\" or \"block\"");
}

Expected<GateTier> read_tier_name(const JsonKeys& keys) {
  TRY(const std::string name, keys.text("tier", ""));
  const auto found = std::find(kTierNames.begin(), kTierNames.end(), name);
  if (found == kTierNames.end()) return keys.wrong("tier", "\"mild\", \"normal\" or \"hard\"");
  return kGateTiers[static_cast<size_t>(found - kTierNames.begin())];
}

// Names and notes go to logs and metrics as they are.
Expected<std::string> read_line(const JsonKeys& keys, const char* key, size_t least, size_t most) {
  TRY(std::string text, keys.text(key, ""));
  const bool printable =
      std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  if (text.size() < least || text.size() > most || !printable) {
    return keys.wrong(
        key, std::to_string(least) + " to " + std::to_string(most) + " printable ASCII characters");
  }
  return text;
}

Status read_sizes(const JsonKeys& keys, GateHeader& header) {
  TRY(header.hidden_size, keys.integer("hidden_size", 1, ConfigLimits::kHidden));
  TRY(header.num_hidden_layers, keys.integer("num_hidden_layers", 1, ConfigLimits::kLayers));
  TRY(header.num_key_value_heads, keys.integer("num_key_value_heads", 1, ConfigLimits::kHeads));
  TRY(header.window, keys.integer("window", 1, GateLimits::kWindow));
  TRY(header.sinks, keys.integer("sinks", 0, GateLimits::kSinks));
  return {};
}

// What the kind has no use for must be 0, so that a file says one thing.
Status read_attention(const JsonKeys& keys, const KindRow& row, GateHeader& header) {
  const bool attends = row.attends, turns = row.least_reach > 0;
  TRY(header.heads, keys.integer("heads", attends ? 1 : 0, attends ? GateLimits::kHeads : 0));
  TRY(header.head_dim,
      keys.integer("head_dim", attends ? 2 : 0, attends ? GateLimits::kHeadDim : 0));
  if (header.head_dim % 2 != 0) return keys.wrong("head_dim", "even");
  if (header.width() > GateLimits::kWidth) {
    return keys.wrong(
        "heads", "such that heads x head_dim is at most " + std::to_string(GateLimits::kWidth));
  }
  TRY(header.reach, keys.integer("reach", row.least_reach, row.most_reach));
  TRY(header.rope_theta,
      keys.number("rope_theta", turns ? 1.0 : 0.0, turns ? ConfigLimits::kTheta : 0.0));
  return {};
}

Status read_tiers(const JsonKeys& keys, GateHeader& header) {
  TRY(const JsonKeys tiers, keys.object("tiers"));
  TRY_STATUS(tiers.refuse_others({kTierNames[0], kTierNames[1], kTierNames[2]}));
  for (const GateTier tier : kGateTiers) {
    TRY(const JsonKeys one, tiers.object(std::string(gate_tier_name(tier)).c_str()));
    TRY_STATUS(one.refuse_others({"threshold", "keep", "loss"}));
    TierSetting& setting = header.tiers[static_cast<size_t>(tier)];
    TRY(const double threshold,
        one.number("threshold", -GateLimits::kThreshold, GateLimits::kThreshold));
    setting.threshold = static_cast<float>(threshold);
    TRY(setting.keep, one.number("keep", 0, 1));
    TRY(setting.loss, one.number("loss", -100, 100));
    if (tier != GateTier::kMild &&
        setting.threshold < header.tiers[static_cast<size_t>(tier) - 1].threshold) {
      return one.wrong("threshold",
                       "no less than the milder tier's: what a tier keeps, the "
                       "milder ones keep too");
    }
  }
  return {};
}

Status read_calibration(const JsonKeys& keys, GateHeader& header) {
  const json* lines = keys.find("calibration");
  if (lines == nullptr || !lines->is_array()) return keys.wrong("calibration", "a list");
  for (size_t i = 0; i < lines->size(); ++i) {
    const std::string where = keys.where() + ": calibration[" + std::to_string(i) + "]";
    if (!(*lines)[i].is_object()) {
      return fail(ErrorCode::kCorrupt,
                  where + " is " + json_excerpt((*lines)[i]) + "; it must be an object");
    }
    const JsonKeys line((*lines)[i], where);
    CalibrationLine& read = header.calibration.emplace_back();
    TRY(read.family, read_line(line, "family", 1, kMostFamilyBytes));
    TRY(read.tier, read_tier_name(line));
    TRY(read.keep, line.number("keep", 0, 1));
    TRY(read.full, line.number("full", 0, 1));
    TRY(read.gated, line.number("gated", 0, 1));
    TRY(read.samples, line.integer("samples", 1, kMostSamples));
    TRY(read.held_out, line.flag("held_out"));
  }
  return {};
}

}  // namespace

std::string_view gate_kind_name(GateKind kind) { return row_of(kind).name; }
std::string_view gate_tier_name(GateTier tier) { return kTierNames[static_cast<size_t>(tier)]; }

Expected<GateHeader> read_gate_header(const std::string& text, const std::string& file) {
  const std::string where = file + ": " + kGateMetadataKey;
  TRY(const JsonDocument document, parse_json(text, where));
  if (!document.root.is_object()) {
    return fail(ErrorCode::kCorrupt, where + ": is not a JSON object");
  }
  const JsonKeys keys(document.root, where);
  TRY(const int32_t version, keys.integer("version", 1, INT32_MAX));
  if (version != kVersion) return keys.unsupported("version", "gates of version 1");
  TRY_STATUS(keys.refuse_others({"version", "kind", "hidden_size", "num_hidden_layers",
                                 "num_key_value_heads", "heads", "head_dim", "reach", "rope_theta",
                                 "window", "sinks", "decode_gate", "tiers", "base", "calibration",
                                 "note"}));
  TRY(const KindRow* row, read_kind(keys));
  GateHeader header;
  header.kind = row->kind;
  TRY_STATUS(read_sizes(keys, header));
  TRY_STATUS(read_attention(keys, *row, header));
  TRY(header.decode_gate, keys.flag("decode_gate"));
  TRY_STATUS(read_tiers(keys, header));
  TRY(header.base, keys.text("base", ""));
  if (header.base.size() != kBaseDigits ||
      header.base.find_first_not_of("0123456789abcdef") != std::string::npos) {
    return keys.wrong("base", std::to_string(kBaseDigits) + " hexadecimal digits in lower case");
  }
  TRY_STATUS(read_calibration(keys, header));
  TRY(header.note, read_line(keys, "note", 0, kMostNoteBytes));
  return header;
}

std::string gate_header_json(const GateHeader& header) {
  nlohmann::ordered_json tiers, lines = nlohmann::ordered_json::array();
  for (const GateTier tier : kGateTiers) {
    const TierSetting& setting = header.tier(tier);
    tiers[std::string(gate_tier_name(tier))] = {
        {"threshold", setting.threshold}, {"keep", setting.keep}, {"loss", setting.loss}};
  }
  for (const CalibrationLine& line : header.calibration) {
    lines.push_back({{"family", line.family},
                     {"tier", gate_tier_name(line.tier)},
                     {"keep", line.keep},
                     {"full", line.full},
                     {"gated", line.gated},
                     {"samples", line.samples},
                     {"held_out", line.held_out}});
  }
  nlohmann::ordered_json object = {{"version", kVersion},
                                   {"kind", gate_kind_name(header.kind)},
                                   {"hidden_size", header.hidden_size},
                                   {"num_hidden_layers", header.num_hidden_layers},
                                   {"num_key_value_heads", header.num_key_value_heads},
                                   {"heads", header.heads},
                                   {"head_dim", header.head_dim},
                                   {"reach", header.reach},
                                   {"rope_theta", header.rope_theta},
                                   {"window", header.window},
                                   {"sinks", header.sinks},
                                   {"decode_gate", header.decode_gate},
                                   {"tiers", std::move(tiers)},
                                   {"base", header.base},
                                   {"calibration", std::move(lines)}};
  if (!header.note.empty()) object["note"] = header.note;
  // Text that is not UTF-8 is no name: read_gate_header refuses what stands in its place.
  return object.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace coppice::model
