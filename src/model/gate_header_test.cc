// What a gate file's header may say, key by key.
#include "model/gate_header.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/test_files.h"
#include "model/test_gate.h"
#include "model/test_golden.h"

namespace coppice::model::testing {
namespace {

using nlohmann::json;

GateHeader header_of(GateKind kind) { return gate_header(kind, *open_golden("llama")); }

// Thresholds are compared with logits, so they must come back to the bit.
TEST(GateHeader, NumbersComeBackToTheBit) {
  GateHeader header = header_of(GateKind::kCausal);
  header.tiers[0] = {-0.1f, 1.0 / 3, -2e-9};
  header.tiers[2].threshold = 1e-40f;
  header.tiers[1].threshold = 0;
  header.rope_theta = 123456.789;
  header.decode_gate = false;
  const auto read = read_gate_header(gate_header_json(header), "f");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, header);
}

// The header of a sound causal gate, changed and read.
std::string refusal(const std::function<void(json&)>& change) {
  json header = json::parse(gate_header_json(header_of(GateKind::kCausal)));
  change(header);
  const auto read = read_gate_header(header.dump(), "g.safetensors");
  const std::string message = message_of(read);
  EXPECT_TRUE(contains(message, "g.safetensors: coppice_gate: "));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message;
}

TEST(GateHeader, EveryKeyIsAskedFor) {
  const json whole = json::parse(gate_header_json(header_of(GateKind::kCausal)));
  for (const auto& [key, value] : whole.items()) {
    EXPECT_TRUE(contains(refusal([&](json& h) { h.erase(key); }), key + " is missing"));
  }
  for (const char* key : {"threshold", "keep", "loss"}) {
    EXPECT_TRUE(contains(refusal([&](json& h) { h["tiers"]["normal"].erase(key); }),
                         std::string("tiers: normal: ") + key + " is missing"));
  }
  for (const auto& [key, value] : whole["calibration"][0].items()) {
    EXPECT_TRUE(contains(refusal([&](json& h) { h["calibration"][1].erase(key); }),
                         "calibration[1]: " + key + " is missing"));
  }
}

TEST(GateHeader, EveryNumberHasBounds) {
  struct Bounds {
    const char* key;
    std::vector<json> wrong;
  };
  const std::vector<Bounds> all = {
      {"version", {0, 2, "1"}},
      {"hidden_size", {0, -1, 1 << 18, 1.5, "64"}},
      {"num_hidden_layers", {0, 1025, uint64_t{1} << 63}},
      {"num_key_value_heads", {0, 1025, true}},
      {"heads", {0, 65, -4}},
      {"head_dim", {0, 1, 11, 130}},
      {"reach", {0, 65, -1, 7.5}},
      {"rope_theta", {0, 0.5, -1, 1e13, "1e4"}},
      {"window", {0, 513, -5}},
      {"sinks", {-1, 65}},
      {"decode_gate", {1, "yes"}},
      {"base", {7, "", "89abcdef0123456", "89ABCDEF01234567", "89abcdef0123456g"}},
      {"kind", {"pointwise", 3, ""}},
      {"tiers", {json::array(), 1}},
      {"calibration", {json::object(), 1}}};
  for (const auto& [key, wrong] : all) {
    for (const json& value : wrong) {
      EXPECT_TRUE(contains(refusal([&](json& h) { h[key] = value; }), std::string(key) + " is "))
          << key << " " << value;
    }
  }
  // Both are allowed alone.
  EXPECT_TRUE(
      contains(refusal([](json& h) { h["heads"] = 64, h["head_dim"] = 128; }), "at most 1024"));
}

TEST(GateHeader, EveryTierHasBounds) {
  const auto tier = [](const char* key, const json& value) {
    return refusal([&](json& h) { h["tiers"]["normal"][key] = value; });
  };
  EXPECT_TRUE(contains(tier("threshold", 1e300), "tiers: normal: threshold is 1e+300"));
  EXPECT_TRUE(contains(tier("threshold", nullptr), "threshold is missing"));
  EXPECT_TRUE(contains(tier("threshold", "nan"), "threshold is \"nan\""));
  EXPECT_TRUE(contains(tier("threshold", -0.1), "no less than the milder tier's"));
  EXPECT_TRUE(contains(tier("keep", 1.01), "keep is 1.01"));
  EXPECT_TRUE(contains(tier("loss", 101), "loss is 101"));
  EXPECT_TRUE(contains(tier("tau", 1), "\"tau\" is not known"));
  EXPECT_TRUE(contains(refusal([](json& h) { h["tiers"]["harder"] = json::object(); }),
                       "\"harder\" is not known"));
  EXPECT_TRUE(
      contains(refusal([](json& h) { h["tiers"].erase("hard"); }), "tiers: hard is missing"));
}

TEST(GateHeader, EveryLineOfTheReportHasBounds) {
  const auto line = [](const char* key, const json& value) {
    return refusal([&](json& h) { h["calibration"][1][key] = value; });
  };
  EXPECT_TRUE(contains(line("family", std::string(65, 'x')), "calibration[1]: family is"));
  EXPECT_TRUE(contains(line("family", "a\nb"), "family is \"a\\nb\""));
  EXPECT_TRUE(contains(line("tier", "off"), "tier is \"off\""));
  EXPECT_TRUE(contains(line("keep", -0.1), "keep is -0.1"));
  EXPECT_TRUE(contains(line("full", 2), "full is 2"));
  EXPECT_TRUE(contains(line("gated", 1.5), "gated is 1.5"));
  EXPECT_TRUE(contains(line("samples", 0), "samples is 0"));
  EXPECT_TRUE(contains(line("held_out", 0), "held_out is 0"));
  EXPECT_TRUE(contains(refusal([](json& h) { h["calibration"][0] = 1; }), "calibration[0] is 1"));
}

TEST(GateHeader, LinesOfTheReportMaySayMore) {
  json header = json::parse(gate_header_json(header_of(GateKind::kPoint)));
  header["calibration"][0]["seed"] = 7;
  EXPECT_TRUE(read_gate_header(header.dump(), "f").has_value());
}

TEST(GateHeader, AKindHasWhatItUsesAndNothingElse) {
  const auto as = [](const char* kind, const char* key, const json& value) {
    return refusal([&](json& h) {
      h["kind"] = kind;
      for (const char* unused : {"heads", "head_dim", "reach", "rope_theta"}) h[unused] = 0;
      if (std::string_view(kind) != "point") h["heads"] = 1, h["head_dim"] = 16;
      h[key] = value;
    });
  };
  EXPECT_TRUE(contains(as("point", "heads", 2), "heads is 2"));
  EXPECT_TRUE(contains(as("point", "head_dim", 16), "head_dim is 16"));
  EXPECT_TRUE(contains(as("point", "reach", 1), "reach is 1"));
  EXPECT_TRUE(contains(as("point", "rope_theta", 1e4), "rope_theta is"));
  EXPECT_TRUE(contains(as("global", "reach", 1), "reach is 1"));
  EXPECT_TRUE(contains(as("global", "rope_theta", 1e4), "rope_theta is"));
  EXPECT_TRUE(contains(as("global", "heads", 0), "heads is 0"));
  EXPECT_TRUE(contains(as("block", "reach", 513), "reach is 513"));
}

TEST(GateHeader, ANoteIsOneLineOrNone) {
  GateHeader header = gate_header(GateKind::kPoint, *open_golden("llama"));
  EXPECT_EQ(json::parse(gate_header_json(header)).count("note"), 0u);
  header.note = "for merged: llama with adapters of rank 8 merged";
  EXPECT_EQ(read_gate_header(gate_header_json(header), "f").value(), header);
  EXPECT_TRUE(contains(refusal([](json& h) { h["note"] = "a\nb"; }), "note is \"a\\nb\""));
  EXPECT_TRUE(contains(refusal([](json& h) { h["note"] = 3; }), "note is 3"));
  EXPECT_TRUE(contains(refusal([](json& h) { h["note"] = std::string(257, 'x'); }), "note is"));
}

TEST(GateHeader, IsReadStrictly) {
  EXPECT_TRUE(
      contains(message_of(read_gate_header("[]", "f")), "f: coppice_gate: is not a JSON object"));
  EXPECT_TRUE(contains(message_of(read_gate_header("{\"a\":1,\"a\":1}", "f")), "appears twice"));
  EXPECT_TRUE(
      contains(message_of(read_gate_header("{\"version\":1e999}", "f")), "f: coppice_gate: "));
  EXPECT_TRUE(contains(refusal([](json& h) { h["treshold"] = 1; }), "\"treshold\" is not known"));
  // A version to come is named as such, whatever else it has.
  EXPECT_TRUE(contains(refusal([](json& h) { h["version"] = 2, h["new"] = 1; }), "version is 2"));
}

}  // namespace
}  // namespace coppice::model::testing
