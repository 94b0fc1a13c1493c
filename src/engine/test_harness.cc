#include "engine/test_harness.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <utility>

#include "base/check.h"
#include "model/test_gate.h"

namespace coppice::engine {
namespace {

// FNV-1a over the words of a row: any changed bit changes it.
uint64_t hash_bits(const float* values, int64_t count) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (int64_t i = 0; i < count; ++i) {
    hash = (hash ^ std::bit_cast<uint32_t>(values[i])) * 0x100000001b3u;
  }
  return hash;
}

}  // namespace

Verdict Tape::on_token(const TokenEvent& event) {
  Take& take = takes_[event.choice];
  take.tokens.push_back(event.token);
  take.text += event.text;
  return judge ? judge(event) : Verdict::kContinue;
}

void Tape::on_logits(RequestId, int32_t choice, int64_t position, const float* logits,
                     int64_t vocab) {
  const uint64_t hash = hash_bits(logits, vocab);
  const auto [at, fresh] = takes_[choice].logits.emplace(position, hash);
  if (!fresh && at->second != hash) ++unsteady_rows;
}

void Tape::on_finish(const Result& result, std::string_view rest) {
  Take& take = takes_[result.choice];
  take.text += rest;
  ++take.finishes;
  take.result = result;
}

bool Tape::finished(int32_t choice) const {
  const auto at = takes_.find(choice);
  return at != takes_.end() && at->second.finishes > 0;
}

Rig::Rig(const EngineOptions& options, const Wrap& wrap) : options_(options) {
  auto backend = backend_for(options);
  if (!backend) std::fprintf(stderr, "%s\n", backend.error().message.c_str());
  CHECK(backend.has_value());
  auto loaded = load(options, wrap ? wrap(std::move(*backend)) : std::move(*backend), {});
  if (!loaded) std::fprintf(stderr, "%s\n", loaded.error().message.c_str());
  CHECK(loaded.has_value());
  limits_ = loaded->limits;
  tiers_ = loaded->tiers;
  core_ = std::make_unique<Core>(std::move(loaded->parts), loaded->limits, loaded->partition);
}

std::shared_ptr<Tape> Rig::submit(std::vector<TokenId> prompt, const Sampling& sampling,
                                  std::shared_ptr<Tape> tape) {
  Request request;
  request.prompt = std::move(prompt);
  request.sampling = sampling;
  return submit(std::move(request), std::move(tape));
}

std::shared_ptr<Tape> Rig::submit(Request request, std::shared_ptr<Tape> tape) {
  if (!tape) tape = std::make_shared<Tape>();
  request.prompt_logits = options_.prompt_logits;
  const auto submission = prepare(std::move(request), tape, core_->parts(), limits_, tiers_,
                                  options_.model, ++last_id_, 1);
  if (submission) {
    core_->submit(*submission);
  } else {
    Result refused;
    refused.finish_reason = FinishReason::kError;
    refused.error = submission.error();
    tape->on_finish(refused, "");
  }
  return tape;
}

void Rig::run() {
  while (step()) {
  }
}

void Rig::expect_all_free() {
  core_->flush();
  check();
  const EngineStats stats = core_->stats();
  EXPECT_EQ(stats.pages_free, stats.pages_total);
  EXPECT_EQ(stats.references, 0);
  EXPECT_EQ(stats.pins, 0);
  EXPECT_EQ(stats.live, 0);
  EXPECT_EQ(stats.waiting, 0);
}

EngineOptions golden_options(const std::string& model) {
  EngineOptions options;
  options.model = COPPICE_TEST_DATA "/models/";
  options.model += model;
  options.backend = "ref";
  options.threads = 1;
  options.dtype = WeightType::kF32;
  options.kv_type = KvType::kF32;
  options.kv_budget = int64_t{64} << 20;
  options.seed = 1;
  return options;
}

std::string random_gate_file(const std::string& directory, const std::string& model,
                             model::GateKind kind,
                             const std::function<void(model::GateHeader&)>& edit) {
  const auto base = model::Checkpoint::open(golden_options(model).model);
  CHECK(base.has_value());
  model::GateHeader header = model::testing::gate_header(kind, **base);
  if (edit) edit(header);
  const std::string path =
      directory + "/" + model + "-" + std::string(model::gate_kind_name(kind)) + ".safetensors";
  CHECK(model::write_gate_file(path, header, model::testing::random_gate(header, 1)).has_value());
  return path;
}

std::vector<TokenId> token_noise(uint32_t seed, size_t count, TokenId first, TokenId vocab) {
  std::mt19937 random(seed);
  std::vector<TokenId> out(count);
  const auto range = static_cast<uint32_t>(vocab - first);
  for (TokenId& id : out) id = first + static_cast<TokenId>(random() % range);
  return out;
}

std::vector<TokenId> joined(std::vector<TokenId> prefix, const std::vector<TokenId>& tail) {
  prefix.insert(prefix.end(), tail.begin(), tail.end());
  return prefix;
}

Sampling greedy(int32_t max_tokens) {
  Sampling sampling;
  sampling.max_tokens = max_tokens;
  sampling.ignore_eos = true;
  return sampling;
}

}  // namespace coppice::engine
