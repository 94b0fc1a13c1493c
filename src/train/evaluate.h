// What:    the share of questions a twin answers exactly (every token and the stop, greedy).
// Owns:    nothing.
// Threads: torch's own.
// Fails:   the tokenizer's errors.
//
// Greedy decoding and teacher forcing agree on exactness: the first wrong token ends both. So one
// forward pass judges an answer.
#pragma once

#include <array>

#include "train/lesson.h"
#include "train/twin.h"

namespace coppice::train {

struct Score {
  int asked = 0;
  int exact = 0;
  std::array<int, storefront::kAttributes> asked_of{};
  std::array<int, storefront::kAttributes> exact_of{};
  double rate() const { return asked > 0 ? static_cast<double>(exact) / asked : 0.0; }
};

struct Exam {
  int facts = 16;
  int questions = 500;
  // How many questions of a shop are asked in one sequence; 1 is what the engine's demo does.
  int per_sequence = 1;
  int per_shop = 4;
  bool closed_book = false;
  uint64_t seed = 0;
};

// Questions on held-out pairs only.
Expected<Score> examine(const Twin& twin, const Bpe& bpe, const Exam& exam);

}  // namespace coppice::train
