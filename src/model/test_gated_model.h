// What:    (tests) a golden model with a gate, ready for steps with gated rows.
// Owns:    all of it, the gate's file included.
// Threads: one.
// Fails:   CHECKs.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "model/gated_test_sequence.h"
#include "model/test_files.h"
#include "model/test_gate.h"
#include "model/test_golden.h"

namespace coppice::model::testing {

inline constexpr int32_t kCapacity = 640;    // tokens of a sequence
inline constexpr int32_t kVocabulary = 320;  // of every golden model

inline std::vector<int32_t> random_tokens(int32_t count, uint32_t seed = 5) {
  std::mt19937 rng(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int32_t& token : tokens) token = static_cast<int32_t>(rng() % kVocabulary);
  return tokens;
}

// What to open for a golden model: a policy, or the kind of a file that is written.
inline std::string gate_spec(const TemporaryDirectory& directory, const Checkpoint& base,
                             const std::string& what) {
  if (what.starts_with(kPolicyPrefix)) return what;
  const GateHeader header =
      gate_header(what == "point" ? GateKind::kPoint : GateKind::kCausal, base);
  const std::string path = directory.path() + "/gate.safetensors";
  CHECK(write_gate_file(path, header, random_gate(header, 3)).has_value());
  return path;
}

// A golden model with a gate on a backend.
struct Gated {
  Gated(const std::string& name, const std::string& what, std::unique_ptr<ops::Backend> on)
      : backend(std::move(on)),
        base(open_golden(name)),
        gate(Gate::open(gate_spec(directory, *base, what), *base, *backend).value()),
        model(Model::load(*base, *backend,
                          {.max_rows = 600, .max_logit_rows = 600, .gate = gate->needs()})
                  .value()) {}
  const ModelConfig& config() const { return model->config(); }
  GatedTestCache cache(DType type, int32_t sequences = 1) const {
    return {*backend, config(), type, kCapacity, gate.get(), sequences};
  }

  TemporaryDirectory directory;
  std::unique_ptr<ops::Backend> backend;
  std::unique_ptr<Checkpoint> base;
  std::unique_ptr<Gate> gate;
  std::unique_ptr<Model> model;
};

}  // namespace coppice::model::testing
