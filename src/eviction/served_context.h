// What:    a context under a gate in the tree itself, as a request would hold it, and questions
//          answered from there.
// Owns:    the sequence that holds the context; what it computed goes with it.
// Threads: one calling thread.
// Fails:   read: kTooLarge where the cache has no room for the context and the questions.
//
// Only the context is gated: a question's tokens are marked exact and the answer's are kept, so
// that a served policy is asked what those are asked that compress a context after reading it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "eviction/kept_context.h"
#include "kv/kv_cache.h"
#include "model/gate.h"

namespace coppice::eviction {

class ServedContext {
 public:
  // gate: what the model was loaded with.
  ServedContext(model::Model& model, model::Gate& gate, kv::KvCache& cache,
                const model::ModelOptions& limits)
      : model_(model), gate_(gate), cache_(cache), limits_(limits) {}
  ~ServedContext() { forget(); }

  struct Held {
    int64_t bytes = 0;               // pages, overlay, probabilities, the gate's memory
    std::vector<double> keep_ratio;  // [L]
  };
  // Forgets the one before.
  Expected<Held> read(std::span<const int32_t> tokens, const ops::GateRule& rule);
  // As KeptContext.
  Expected<std::vector<std::vector<int32_t>>> answer(std::span<const Question> questions,
                                                     std::span<const int32_t> stops);
  // -log p of tokens[1..], on average.
  Expected<double> nats(std::span<const int32_t> tokens);

 private:
  struct Live;
  void forget();
  kv::SequenceId open(std::span<const int32_t> after);
  // One step of all that can advance; logits of the rows that end a sequence, and which those are.
  Expected<TensorView> step(std::span<Live* const> going, bool every_row);
  Status answer_group(std::span<const Question> questions, std::span<const int32_t> stops,
                      std::span<std::vector<int32_t>> answers);

  model::Model& model_;
  model::Gate& gate_;
  kv::KvCache& cache_;
  model::ModelOptions limits_;
  kv::Tier tier_;
  std::vector<int32_t> context_;
  kv::SequenceId held_ = 0;
};

}  // namespace coppice::eviction
