// What:    what published policies think a key is worth: one score per KV head and token, larger is
//          kept first.
// Owns:    the view its copies of keys and values.
// Threads: pure functions of the view.
// Fails:   CHECKs sizes.
//
// T tokens of the context, R rows read in all (T and what was read beyond), S scores [lists][T],
// list = layer * Hkv + head, G = Hq / Hkv query heads to a list. A row's attention is
// softmax(q.k / sqrt(D)) over the keys before it and its own. Each policy scores after the whole
// context was read in full, which is at least as much as its paper gives it.
#pragma once

#include <cstdint>
#include <vector>

#include "eviction/kept_context.h"

namespace coppice::eviction {

using Scores = std::vector<float>;

class ContextView {
 public:
  // A copy of what `context` holds of everything that was read.
  explicit ContextView(KeptContext& context);

  int32_t layers() const { return config_.num_hidden_layers; }
  int32_t lists() const { return layers() * config_.num_key_value_heads; }
  int32_t tokens() const { return tokens_; }  // T
  int32_t rows() const { return rows_; }      // R
  int32_t dim() const { return config_.head_dim; }
  int32_t group() const { return config_.num_attention_heads / config_.num_key_value_heads; }
  const std::vector<float>& inverse_frequencies() const { return config_.rope_inv_freq; }  // [D/2]
  const float* key(int32_t list, int32_t row) const { return at(keys_, list, row); }       // [D]
  const float* value(int32_t list, int32_t row) const { return at(values_, list, row); }   // [D]
  // Of a list's g-th query head, rotated [D].
  const float* query(int32_t list, int32_t g, int32_t row) const;
  // What the row's head pays to keys [0, row]: out [R], of which row + 1 are written.
  void attention(int32_t list, int32_t g, int32_t row, std::vector<float>& out) const;

 private:
  const float* at(const std::vector<std::vector<float>>& all, int32_t list, int32_t row) const {
    return all[static_cast<size_t>(list)].data() + int64_t{row} * dim();
  }
  model::ModelConfig config_;
  const QueryLog& log_;
  int32_t tokens_, rows_;
  std::vector<std::vector<float>> keys_, values_;  // [lists][R D]
};

// The attention paid to a key by all rows that see it, by their number. arXiv 2306.14048, with the
// sum normalised so that early keys are not favoured for being seen more often.
Scores h2o_scores(const ContextView& view);
// What the last row pays, over all heads of the layer. arXiv 2401.06104.
Scores tova_scores(const ContextView& view);
// What rows [begin, end) pay on average, smoothed over 5 neighbours. arXiv 2404.14469: the last 32
// of the context, or, with the question in sight, the question's. (There the 32 are kept besides;
// here every policy has the same protection.)
Scores snapkv_scores(const ContextView& view, int32_t begin, int32_t end);
// How unlike the mean direction of the keys a key is. arXiv 2504.15364.
Scores keydiff_scores(const ContextView& view);
// The logarithm of what a query drawn like the context's would pay to it over the next 512
// positions, by the length of its value; the first 4 tokens are apart and come first. arXiv
// 2510.00636. In logarithms, since large keys leave most tokens a share that no float can tell
// from 0.
Scores expected_attention_scores(const ContextView& view);
// The most that any row beyond the context pays, where that repeats the context. arXiv 2505.23416,
// in one piece: the rows stand at positions up to twice the context's.
Scores kvzip_scores(const ContextView& view);

// What attention reaches far: the mean over rows from `begin` on of what a list's heads pay to keys
// beyond the last `window` and the first `sinks` [lists]. Lists with much of it, where a question
// and its answer are read, retrieve; the others stream, in DuoAttention's sense (arXiv 2410.10819,
// where it is learned).
std::vector<double> far_attention(const ContextView& view, int32_t begin, int32_t sinks,
                                  int32_t window);

}  // namespace coppice::eviction
