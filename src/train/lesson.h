// What:    shops and tasks as token ids with a loss weight for every prediction.
// Owns:    the ids it returns.
// Threads: none of its own.
// Fails:   the tokenizer's errors.
#pragma once

#include <cstdint>
#include <vector>

#include <torch/types.h>

#include "coppice/error.h"
#include "eval/families.h"
#include "eval/storefront.h"
#include "train/bpe.h"

namespace coppice::train {

// One sequence: facts, newline, then questions with their answers, each answer ended by <|eos|>.
struct Lesson {
  struct Answer {
    int begin = 0, end = 0;  // token positions of the answer and its <|eos|>: [begin, end)
    storefront::Attribute attribute = storefront::Attribute::kPrice;
  };
  std::vector<int32_t> ids;
  std::vector<Answer> answers;
  bool every_token = false;  // a text without questions: every prediction weighs 1
};

// All questions of the shop from `first` on, `count` at most, asked one after another.
// with_facts = false leaves the facts out (closed book).
Expected<Lesson> make_lesson(const Bpe& bpe, const storefront::Shop& shop, int first, int count,
                             bool with_facts = true);

// The context, then its asks one after another while the lesson stays within `most_tokens`; the
// first always stands.
Expected<Lesson> make_lesson(const Bpe& bpe, const families::TaskSample& sample, int most_tokens);

struct Batch {
  torch::Tensor inputs;   // [B, T] int64
  torch::Tensor rows;     // [R] int64, positions in [0, B*T) whose prediction has a loss
  torch::Tensor targets;  // [R] int64
  torch::Tensor weights;  // [R] f32
  int64_t tokens = 0;     // B * T
};

// Pads to the longest. Answer tokens weigh 1; of the rest one in `rest_one_in` positions is drawn
// and weighs rest_weight * rest_one_in, so that its expectation is rest_weight each.
Batch make_batch(const std::vector<Lesson>& lessons, double rest_weight, int rest_one_in,
                 uint64_t seed);

// logits [R, V] -> mean negative log likelihood of the targets by the batch's weights [].
torch::Tensor weighted_loss(const torch::Tensor& logits, const Batch& batch);

}  // namespace coppice::train
