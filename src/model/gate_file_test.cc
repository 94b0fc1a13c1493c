// What is written is read; what is wrong in a file is refused by its name (gate_header_test.cc: in
// its header).
#include "model/gate_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include <nlohmann/json.hpp>

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

}  // namespace
}  // namespace coppice::model::testing
