// What is written is read; what is wrong in a file is refused by its name.
#include "model/gate_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <set>
#include <vector>

#include <nlohmann/json.hpp>

#include "model/base_hash.h"
#include "model/test_files.h"
#include "model/test_gate.h"
#include "model/test_golden.h"

namespace coppice::model::testing {
namespace {

using nlohmann::json;

constexpr GateKind kKinds[] = {GateKind::kPoint, GateKind::kCausal, GateKind::kGlobal,
                               GateKind::kBlock};

std::string file_of(const TemporaryDirectory& directory, const GateHeader& header) {
  const std::string path = directory.path() + "/gate.safetensors";
  const Status written = write_gate_file(path, header, random_gate(header, 1));
  EXPECT_TRUE(written.has_value());
  return path;
}

// --- what is written

TEST(GateFile, IsReadAsItWasWritten) {
  const TemporaryDirectory directory;
  const auto base = open_golden("llama");
  for (const GateKind kind : kKinds) {
    SCOPED_TRACE(gate_kind_name(kind));
    const GateHeader header = gate_header(kind, *base);
    const auto gate = GateFile::open(file_of(directory, header));
    ASSERT_TRUE(gate) << gate.error().message;
    EXPECT_EQ(gate->header(), header);
    const std::vector<GateTensor> tensors = gate_tensors(header);
    EXPECT_EQ(tensors.size(), (kind == GateKind::kPoint ? 2u : 6u) * 2);
    for (size_t i = 0; i < tensors.size(); ++i) {
      std::vector<float> values(static_cast<size_t>(tensors[i].shape.elements()));
      random_gate(header, 1)(i, values);
      const auto data = gate->tensor(tensors[i]);
      ASSERT_TRUE(data) << data.error().message;
      EXPECT_EQ(data->copy.bytes(), 0) << "the numbers are used in place";
      EXPECT_EQ(std::memcmp(data->view.f32(), values.data(), values.size() * sizeof(float)), 0);
    }
  }
}

// Thresholds are compared with logits, so they must come back to the bit.
TEST(GateFile, NumbersComeBackToTheBit) {
  GateHeader header = gate_header(GateKind::kCausal, *open_golden("llama"));
  header.tiers[0] = {-0.1f, 1.0 / 3, -2e-9};
  header.tiers[2].threshold = 1e-40f;
  header.tiers[1].threshold = 0;
  header.rope_theta = 123456.789;
  header.decode_gate = false;
  const auto read = read_gate_header(gate_header_json(header), "f");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, header);
}

TEST(GateFile, NothingUnsoundIsWritten) {
  const TemporaryDirectory directory;
  const auto base = open_golden("llama");
  const auto refused = [&](const std::function<void(GateHeader&)>& change, const char* part) {
    GateHeader header = gate_header(GateKind::kCausal, *base);
    change(header);
    const std::string path = directory.path() + "/unsound";
    EXPECT_TRUE(contains(message_of(write_gate_file(path, header, random_gate(header, 1))), part));
    EXPECT_FALSE(std::filesystem::exists(path));
  };
  refused([](GateHeader& h) { h.tiers[1].threshold = NAN; }, "normal: threshold");
  refused([](GateHeader& h) { h.tiers[2].threshold = std::numeric_limits<float>::infinity(); },
          "hard: threshold");
  refused([](GateHeader& h) { h.window = 513; }, "window is 513");
  refused([](GateHeader& h) { h.base.pop_back(); }, "base");
  refused([](GateHeader& h) { h.calibration[0].family.back() = char(0xff); }, "family");
}

TEST(GateFile, ItsHashIsOfAllItsBytes) {
  const auto base = open_golden("llama");
  const TemporaryDirectory directory;
  const std::string bytes =
      read_file(file_of(directory, gate_header(GateKind::kPoint, *base))).value();
  const uint64_t hash = GateFile::read(as_bytes(bytes), "f")->hash();
  EXPECT_EQ(GateFile::read(as_bytes(bytes), "f")->hash(), hash);
  std::string changed = bytes;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  EXPECT_NE(GateFile::read(as_bytes(changed), "f")->hash(), hash);
}

// --- what the header may say

// The header of a sound causal gate, changed and read.
std::string refusal(const std::function<void(json&)>& change) {
  json header =
      json::parse(gate_header_json(gate_header(GateKind::kCausal, *open_golden("llama"))));
  change(header);
  const auto read = read_gate_header(header.dump(), "g.safetensors");
  const std::string message = message_of(read);
  EXPECT_TRUE(contains(message, "g.safetensors: coppice_gate: "));
  EXPECT_EQ(message.find('\n'), std::string::npos);
  return message;
}

TEST(GateHeader, EveryKeyIsAskedFor) {
  const json whole =
      json::parse(gate_header_json(gate_header(GateKind::kCausal, *open_golden("llama"))));
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

TEST(GateHeader, ANoteIsOneLineOrNone) {
  GateHeader header = gate_header(GateKind::kPoint, *open_golden("llama"));
  EXPECT_EQ(json::parse(gate_header_json(header)).count("note"), 0u);
  header.note = "for merged: llama with adapters of rank 8 merged";
  EXPECT_EQ(read_gate_header(gate_header_json(header), "f").value(), header);
  EXPECT_TRUE(contains(refusal([](json& h) { h["note"] = "a\nb"; }), "note is \"a\\nb\""));
  EXPECT_TRUE(contains(refusal([](json& h) { h["note"] = 3; }), "note is 3"));
  EXPECT_TRUE(contains(refusal([](json& h) { h["note"] = std::string(257, 'x'); }), "note is"));
}

TEST(GateHeader, LinesOfTheReportMaySayMore) {
  json header = json::parse(gate_header_json(gate_header(GateKind::kPoint, *open_golden("llama"))));
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

// --- what the file may hold

// A gate file taken apart.
struct Parts {
  struct One {
    std::string type;
    json shape;
    std::string data;
  };
  json metadata;
  std::map<std::string, One> tensors;

  std::string bytes() const {
    json table = {{"__metadata__", metadata}};
    std::string data;
    for (const auto& [name, one] : tensors) {
      table[name] = {{"dtype", one.type},
                     {"shape", one.shape},
                     {"data_offsets", {data.size(), data.size() + one.data.size()}}};
      data += one.data;
    }
    return safetensors_bytes(table.dump(), data);
  }
};

Parts sound(GateKind kind = GateKind::kCausal) {
  const TemporaryDirectory directory;
  const std::string bytes =
      read_file(file_of(directory, gate_header(kind, *open_golden("llama")))).value();
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof size);
  const json table = json::parse(bytes.substr(8, size));
  Parts parts;
  for (const auto& [name, entry] : table.items()) {
    if (name == "__metadata__") {
      parts.metadata = entry;
      continue;
    }
    const size_t begin = entry["data_offsets"][0].get<size_t>();
    const size_t end = entry["data_offsets"][1].get<size_t>();
    parts.tensors[name] = {entry["dtype"].get<std::string>(), entry["shape"],
                           bytes.substr(8 + size + begin, end - begin)};
  }
  return parts;
}

std::string file_refusal(const Parts& parts) {
  const std::string bytes = parts.bytes();
  const std::string message = message_of(GateFile::read(as_bytes(bytes), "g.safetensors"));
  EXPECT_TRUE(contains(message, "g.safetensors: "));
  return message;
}

constexpr const char* kNames[] = {"ws", "b", "wq", "wk", "wv", "wo"};

TEST(GateFile, IsASafetensorsFileWithAHeader) {
  const std::string bare = safetensors_bytes("{}", "");
  EXPECT_TRUE(contains(message_of(GateFile::read(as_bytes(bare), "f")), "f: is not a gate file"));
  const auto model = GateFile::open(golden_path("llama") + "/model.safetensors");
  EXPECT_TRUE(contains(message_of(model), "is not a gate file"));
  EXPECT_EQ(GateFile::open("/nowhere.gate").error().code, ErrorCode::kNotFound);
  Parts parts = sound();
  parts.metadata["format"] = "pt";
  const std::string other_keys = parts.bytes();
  EXPECT_TRUE(GateFile::read(as_bytes(other_keys), "f").has_value());
  parts.metadata[kGateMetadataKey] = "{";
  EXPECT_TRUE(contains(file_refusal(parts), "coppice_gate: the JSON text ends too early"));
}

TEST(GateFile, EveryTruncationIsRefused) {
  const std::string bytes = sound(GateKind::kPoint).bytes();
  ASSERT_TRUE(GateFile::read(as_bytes(bytes), "f").has_value());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::string cut = bytes.substr(0, size);
    ASSERT_FALSE(GateFile::read(as_bytes(cut), "f").has_value()) << size;
  }
}

TEST(GateFile, ATensorThatIsMissingIsNamed) {
  for (const char* name : kNames) {
    const std::string whole = std::string("layers.1.") + name;
    Parts parts = sound();
    parts.tensors.erase(whole);
    EXPECT_TRUE(contains(file_refusal(parts), "has no tensor \"" + whole + "\""));
  }
}

TEST(GateFile, ATensorTooManyIsNamed) {
  for (const char* name : {"layers.1.other", "layers.2.ws", "layers.01.b", "b"}) {
    Parts parts = sound();
    parts.tensors[name] = parts.tensors.at("layers.1.b");
    EXPECT_TRUE(
        contains(file_refusal(parts), "\"" + std::string(name) + "\" that its header has no use"));
  }
  Parts point = sound(GateKind::kPoint);
  point.tensors["layers.0.wo"] = sound().tensors.at("layers.0.wo");
  EXPECT_TRUE(contains(file_refusal(point), "\"layers.0.wo\" that its header has no use"));
}

TEST(GateFile, AMisshapenTensorIsNamedWithBothShapes) {
  for (const char* name : kNames) {
    const std::string whole = std::string("layers.0.") + name;
    Parts parts = sound();
    json& shape = parts.tensors[whole].shape;
    if (shape.size() == 2) {
      std::swap(shape[0], shape[1]);
    } else {
      shape.push_back(1);
    }
    const std::string message = file_refusal(parts);
    EXPECT_TRUE(contains(message, "\"" + whole + "\" has the shape"));
    EXPECT_TRUE(contains(message, "asks for"));
  }
}

TEST(GateFile, TensorsMustBeThoseOfTheHeader) {
  for (const int layers : {1, 3}) {
    Parts parts = sound();
    json header = json::parse(parts.metadata[kGateMetadataKey].get<std::string>());
    header["num_hidden_layers"] = layers;
    parts.metadata[kGateMetadataKey] = header.dump();
    EXPECT_TRUE(contains(file_refusal(parts), layers == 1 ? "\"layers.1.b\" that its header"
                                                          : "no tensor \"layers.2.ws\""));
  }
  Parts point = sound(GateKind::kPoint);
  point.metadata = sound().metadata;
  EXPECT_TRUE(contains(file_refusal(point), "no tensor \"layers.0.wq\""));
}

TEST(GateFile, TensorsAreFloatsAndFinite) {
  for (const char* type : {"BF16", "F16", "I16"}) {
    Parts parts = sound();
    Parts::One& b = parts.tensors["layers.1.b"];
    b.type = type;
    b.data.resize(b.data.size() / 2);
    const std::string message = file_refusal(parts);
    EXPECT_TRUE(contains(message, "\"layers.1.b\" is "));
  }
  for (const float bad : {std::numeric_limits<float>::infinity(), NAN}) {
    Parts holed = sound();
    std::memcpy(holed.tensors["layers.1.wv"].data.data() + 12, &bad, sizeof bad);
    EXPECT_TRUE(contains(file_refusal(holed), "\"layers.1.wv\": value 3 is not a finite number"));
  }
}

// --- the base's hash

// A checkpoint of which one value is another's.
class OneValueChanged : public Checkpoint {
 public:
  OneValueChanged(const Checkpoint& base, std::string name, int64_t element)
      : base_(base), config_(base.config()), name_(std::move(name)), element_(element) {}
  const ModelConfig& config() const override { return config_; }
  Expected<TensorData> tensor(std::string_view name, const Shape& shape) const override {
    TRY(TensorData data, base_.tensor(name, shape));
    if (name != name_) return data;
    TRY(Buffer copy, Buffer::allocate(data.view.bytes()));
    std::memcpy(copy.data(), data.view.raw(), static_cast<size_t>(data.view.bytes()));
    const TensorView view = copy.view(data.view.type(), shape);
    view.f32()[element_ < 0 ? view.elements() + element_ : element_] += 0.25f;
    return TensorData{view, std::move(copy)};
  }
  Expected<Shape> shape(std::string_view name) const override { return base_.shape(name); }
  Expected<TensorForm> check(std::string_view name, const Shape& shape) const override {
    return base_.check(name, shape);
  }
  bool has(std::string_view name) const override { return base_.has(name); }
  std::vector<std::string> names() const override { return base_.names(); }
  const std::string& path() const override { return base_.path(); }
  std::string tokenizer_path() const override { return base_.tokenizer_path(); }
  Expected<std::string> tokenizer_json() const override { return base_.tokenizer_json(); }

  const Checkpoint& base_;
  ModelConfig config_;
  std::string name_;
  int64_t element_;
};

std::string hash_of(const Checkpoint& checkpoint) { return base_hash(checkpoint).value(); }

std::string hash_of(const std::string& data) {
  return hash_of(*Checkpoint::open(std::string(COPPICE_TEST_DATA) + "/" + data).value());
}

TEST(BaseHash, IsOfTheNumbersWhateverTheFile) {
  EXPECT_EQ(hash_of("models/llama"), hash_of("gguf/llama-f32.gguf"));
  EXPECT_EQ(hash_of("models/llama3-bf16"), hash_of("gguf/llama3-bf16.gguf"));
  std::set<std::string> all;
  for (const char* data : {"models/llama", "models/llama-bf16", "gguf/llama-q8_0.gguf",
                           "models/llama3", "models/qwen2", "models/qwen3"}) {
    const std::string hash = hash_of(data);
    EXPECT_EQ(hash.size(), 16u);
    EXPECT_TRUE(all.insert(hash).second) << data;
  }
}

TEST(BaseHash, CoversEveryTensorAndAllOfItsVectors) {
  const auto base = open_golden("qwen3");
  const std::string hash = hash_of(*base);
  EXPECT_EQ(hash, hash_of(*base));
  for (const std::string& name : base->names()) {
    const bool vector = base->shape(name)->rank() == 1;
    for (const int64_t element : {0, 1, vector ? 5 : 0, -1}) {
      EXPECT_NE(hash, hash_of(OneValueChanged(*base, name, element))) << name << " " << element;
    }
  }
  // A row between the sampled ones, of many, is what it leaves out.
  const Shape embedding = base->shape("model.embed_tokens.weight").value();
  ASSERT_GT(embedding[0], 2 * BaseHash::kSampledRows);
  EXPECT_EQ(hash, hash_of(OneValueChanged(*base, "model.embed_tokens.weight", embedding[1])));
}

TEST(BaseHash, CoversTheConfig) {
  const auto base = open_golden("llama");
  const std::string hash = hash_of(*base);
  const auto changed = [&](const std::function<void(ModelConfig&)>& change) {
    OneValueChanged other(*base, "", 0);
    change(other.config_);
    return hash_of(other);
  };
  EXPECT_EQ(changed([](ModelConfig& c) { c.max_position_embeddings *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.rope_theta *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.rms_norm_eps *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.architecture = Architecture::kQwen2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.num_attention_heads *= 2; }), hash);
  EXPECT_NE(changed([](ModelConfig& c) { c.qk_norm = true; }), hash);
}

TEST(BaseHash, LeavesOutWhatTheNetworkDoes) {
  ModelConfig config = open_golden("llama3")->config();
  ASSERT_TRUE(config.tie_word_embeddings);
  EXPECT_FALSE(BaseHash(config).covers("lm_head.weight"));
  EXPECT_FALSE(BaseHash(config).covers("model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(BaseHash(config).covers("rope_freqs.weight"));
  config.tie_word_embeddings = false;
  EXPECT_TRUE(BaseHash(config).covers("lm_head.weight"));
}

}  // namespace
}  // namespace coppice::model::testing
