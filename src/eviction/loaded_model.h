// What:    a model with what a comparison runs it on, and the tasks' contexts in its tokens.
// Owns:    the engine's parts; nothing of it runs but what its caller calls.
// Threads: one calling thread.
// Fails:   open: as the engine's loader. samples: kInvalidArgument for a context or a question that
//          is too long.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/loader.h"
#include "eviction/comparison.h"
#include "eviction/kept_context.h"

namespace coppice::eviction {

// One context with its questions; markov has what follows instead.
struct Sample {
  std::vector<int32_t> context;
  std::vector<Question> questions;
  std::vector<std::string> answers;
  std::vector<int32_t> following;
};

class LoadedModel {
 public:
  // gate: what Gate::open takes, or empty. max_rows: of a step.
  static Expected<std::unique_ptr<LoadedModel>> open(const EngineOptions& options,
                                                     const std::string& gate, int32_t max_rows);

  // Held-out contexts of a task, a function of the seed; up to `samples` questions.
  Expected<std::vector<Sample>> samples(const Task& task, uint64_t seed, int samples,
                                        int per_context) const;
  // Room for these contexts, each with a replay of itself or a question beyond.
  Expected<std::unique_ptr<KeptContext>> context_for(const std::vector<Sample>& samples);

  const model::ModelConfig& config() const { return loaded_.parts.model->config(); }
  int32_t lists() const { return config().num_hidden_layers * config().num_key_value_heads; }
  bool is_right(const std::vector<int32_t>& tokens, const std::string& answer) const {
    return loaded_.parts.tokenizer->decode(tokens, false) == answer;
  }
  // What separates a context from its replay.
  std::vector<int32_t> marker() const { return loaded_.parts.tokenizer->encode("\n", false); }

  int64_t ctx() const { return loaded_.limits.ctx; }
  engine::Parts& parts() { return loaded_.parts; }
  const model::ModelOptions& limits() const { return limits_; }

 private:
  LoadedModel() = default;
  Status check(const Task& task, const Sample& sample) const;
  engine::Loaded loaded_;
  std::shared_ptr<QueryLog> log_;
  model::ModelOptions limits_;
  DType kv_type_ = DType::kBF16;
};

}  // namespace coppice::eviction
