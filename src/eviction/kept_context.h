// What:    a context that is read once in full, and questions answered from any choice of its keys
//          and values: how a policy is judged that needs to see more than the past.
// Owns:    pages of its own, outside of any cache; tokens and queries of what was read.
// Threads: one calling thread.
// Fails:   create: kTooLarge. Sizes beyond its room are CHECKs.
//
//   read        [ context ............ | beyond ]   every key and value, in whole lists
//   keep(mask)  [ kept of each list .. ]            the chosen slots, copied together: the same
//   bits answer      [ kept, whole pages | its last, partial page and the question | answer ...]
//
// Questions attend to what was kept and to themselves, at their own positions, through the very
// kernels and the ragged plans that a gated tree uses; what they add is never dropped.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "eviction/keep_mask.h"
#include "eviction/query_log.h"
#include "model/model.h"

namespace coppice::eviction {

// What is asked of the model: at most so many tokens, or up to a stop token, which is not returned.
struct Question {
  std::vector<int32_t> tokens;
  int32_t most = 0;
};

// -log p of a token by its logits [V].
double nats_of(std::span<const float> logits, int32_t token);

struct Room {
  int32_t context = 0;    // tokens of a context, ...
  int32_t beyond = 0;     // of what is read after it
  int32_t questions = 0;  // that are answered at a time
  int32_t tail = 0;       // tokens of a question and its answer
};

class KeptContext {
 public:
  // backend: logged() into `log`. max_rows, max_logit_rows: as the model was loaded with.
  static Expected<std::unique_ptr<KeptContext>> create(model::Model& model, ops::Backend& backend,
                                                       std::shared_ptr<QueryLog> log, DType kv_type,
                                                       const model::ModelOptions& limits,
                                                       const Room& room);

  // Forgets everything and reads a context; then everything of it is kept. The log holds its
  // queries by position.
  void read(std::span<const int32_t> tokens);
  // Reads on, with everything before in sight; rows join the log. Forgotten by the next call and by
  // read.
  void read_beyond(std::span<const int32_t> tokens);
  int32_t tokens() const { return context_; }
  int32_t tokens_read() const { return read_; }
  const QueryLog& log() const { return *log_; }
  int32_t page_slots() const { return arena_.layout.page_slots; }
  int64_t page_bytes() const { return arena_.layout.page_bytes; }
  const model::ModelConfig& config() const { return model_.config(); }
  // As stored, of everything that was read: k and v [tokens_read][D].
  void read_list(int32_t list, std::vector<float>& k, std::vector<float>& v);

  void keep(const KeepMask& mask);
  // Instead of read and keep: reads a context in one step under a gate that the model was loaded
  // with, and keeps what that decides; questions also see what it dropped of the last window - 1
  // tokens, as the first row after the context does.
  // Returns what it kept without those. Nothing is logged, and nothing can be read beyond.
  KeepMask read_gated(std::span<const int32_t> tokens, model::Gate& gate,
                      const ops::GateRule& rule);
  // Greedy, in groups of as many as there is room for.
  std::vector<std::vector<int32_t>> answer(std::span<const Question> questions,
                                           std::span<const int32_t> stops);
  // Mean -log p of tokens[1..] after the context and each other.
  double nats(std::span<const int32_t> tokens);

 private:
  struct Tail;
  KeptContext(model::Model& model, std::shared_ptr<QueryLog> log, const model::ModelOptions& limits,
              const Room& room)
      : model_(model), log_(std::move(log)), limits_(limits), room_(room) {}
  int32_t lists() const { return config().num_hidden_layers * config().num_key_value_heads; }
  ops::PageId* table(std::vector<ops::PageId>& pages, int32_t stride, int32_t list) const {
    return pages.data() + static_cast<int64_t>(list) * stride;
  }
  TensorView run(std::span<const int32_t> tokens, std::span<const int32_t> positions,
                 std::span<const int32_t> logit_rows, const ops::AttentionPlan& plan);
  void extend(std::span<const int32_t> tokens);
  Tail begin_tail(int32_t which) const;
  TensorView step(std::span<Tail* const> tails, std::span<const std::span<const int32_t>> rows,
                  std::span<const int32_t> logit_rows);
  void answer_group(std::span<const Question> questions, std::span<const int32_t> stops,
                    std::span<std::vector<int32_t>> answers);

  model::Model& model_;
  ops::Backend* backend_ = nullptr;
  std::shared_ptr<QueryLog> log_;
  model::ModelOptions limits_;
  Room room_;
  Buffer memory_;
  ops::KvArena arena_;
  int32_t context_ = 0, read_ = 0;  // tokens
  int32_t full_stride_ = 0, kept_stride_ = 0, tail_stride_ = 0;
  std::vector<ops::PageId> full_, kept_;  // [lists][stride]
  std::vector<ops::PageId> tails_;        // [questions][lists][stride]
  std::vector<int32_t> kept_counts_;      // [lists] slots
  std::vector<int32_t> shared_counts_;    // [lists] of them, on whole pages
};

}  // namespace coppice::eviction
