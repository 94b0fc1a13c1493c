// What:    (tests) the cases of promise 3 in gated tiers: models, types and gates, an engine for
//          each, and the target that every condition compares, cold and alone.
// Owns:    gate files with random weights, as long as the process runs.
// Threads: one.
// Fails:   as Rig.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/test_harness.h"
#include "model/test_files.h"
#include "other_fold_backend.h"
#include "promise3.h"

namespace coppice::engine {

inline constexpr int32_t kAnswer = 12;

// Gates of the cases. Thresholds of the random files keep about half, a quarter, an eighth.
struct GateCase {
  const char* name;
  const char* policy;    // or null: a file, of
  model::GateKind kind;  // this
  bool decode_gate = true;
  size_t prompt = 9 * 64 + 29;     // tokens of the target: across pages and the boundaries' grid
  double least = 0.1, most = 0.5;  // kept of every layer
  double bytes = 0.6;              // at most, of those in tier off
};

inline const GateCase& gate_of(const std::string& name) {
  using enum model::GateKind;
  static constexpr GateCase kGates[] = {
      {"random", "policy:random,keep=0.25,window=16", kPoint},
      {"point", nullptr, kPoint},
      {"causal", nullptr, kCausal},
      // Generated tokens are all kept, and nobody's but their writer's.
      {"prompts", nullptr, kCausal, false},
      // What is kept passes a fold range, what is dropped fills pages.
      {"wide", "policy:random,keep=0.55,window=200", kPoint, true, 1100, 0.5, 0.6, 0.95},
  };
  return *std::ranges::find(kGates, name, &GateCase::name);
}

struct Case {
  const char* model;
  WeightType dtype;
  const char* backend;
  int32_t threads;
  const char* gate;
  std::optional<KvType> kv_type = {};  // where it is not that of the weights
  std::optional<FoldCut> other_fold = {};

  friend void PrintTo(const Case& c, std::ostream* out) {
    *out << c.model << " under " << c.gate << " on " << c.backend << ", " << c.threads
         << " threads";
  }
  auto key() const {
    return std::make_tuple(std::string(model), std::string(gate), std::string(backend), kv_type,
                           other_fold);
  }
};

inline std::string gate_spec(const Case& given) {
  static const model::TemporaryDirectory directory;
  static std::map<std::pair<std::string, std::string>, std::string> written;
  const GateCase& gate = gate_of(given.gate);
  if (gate.policy != nullptr) return gate.policy;
  std::string& path = written[{given.model, given.gate}];
  if (!path.empty()) return path;
  const std::string own = directory.path() + "/" + gate.name;
  std::filesystem::create_directory(own);
  path = random_gate_file(own, given.model, gate.kind, [&](model::GateHeader& header) {
    header.window = 24;
    header.decode_gate = gate.decode_gate;
  });
  return path;
}

inline EngineOptions options_of(const Case& given) {
  EngineOptions o = golden_options(given.model);
  o.dtype = given.dtype;
  o.kv_type =
      given.kv_type.value_or(given.dtype == WeightType::kF32 ? KvType::kF32 : KvType::kBF16);
  o.backend = given.backend;
  o.threads = given.threads;
  o.gate = gate_spec(given);
  o.kv_budget = int64_t{256} << 20;
  o.max_live = 64;
  o.max_rows = 600;
  o.slice = 512;
  o.prompt_logits = true;
  return o;
}

inline Rig rig_of(const Case& given, const EngineOptions& options) {
  if (!given.other_fold) return Rig(options);
  return Rig(options, [&](std::unique_ptr<ops::Backend> inner) {
    return fold_in_another_order(std::move(inner), *given.other_fold);
  });
}
inline Rig rig_of(const Case& given) { return rig_of(given, options_of(given)); }

inline size_t prompt_of(const Case& given) { return gate_of(given.gate).prompt; }
inline std::vector<TokenId> target(const Case& given) { return noise(1, prompt_of(given)); }

inline Request request_of(std::vector<TokenId> prompt, const Sampling& sampling = greedy(kAnswer)) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = sampling;
  return request;
}

inline Result run(Rig& rig, Request request) {
  const auto tape = rig.submit(std::move(request));
  rig.run();
  return tape->take().result;
}

// The request cold, alone, on one thread.
inline Take alone(Case given, Request request) {
  given.threads = 1;
  Rig rig = rig_of(given);
  const auto tape = rig.submit(std::move(request));
  rig.run();
  EXPECT_EQ(tape->take().result.usage.cached_tokens, 0);
  return tape->take();
}

inline const Take& base_of(const Case& given) {
  static std::map<decltype(given.key()), Take> made;
  const auto [at, fresh] = made.try_emplace(given.key());
  if (fresh) at->second = alone(given, request_of(target(given)));
  return at->second;
}

inline void expect_dropped(const Case& given, const Usage& usage) {
  const GateCase& gate = gate_of(given.gate);
  EXPECT_EQ(usage.keep_ratio.size(), 2u);
  for (const double ratio : usage.keep_ratio) {
    EXPECT_GT(ratio, gate.least);
    EXPECT_LT(ratio, gate.most);
  }
}

}  // namespace coppice::engine
