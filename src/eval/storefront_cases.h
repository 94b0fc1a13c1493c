// What:    storefront questions as test cases: whole prompts, the answers that count, their kinds.
// Owns:    plain values; a pure function of its arguments.
// Threads: any.
// Fails:   CHECKs facts in [1, kMaxFacts] and samples >= 0.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "eval/storefront.h"

namespace coppice::storefront {

struct Case {
  std::string prompt;     // the shop's text and the question
  std::string question;   // the question alone
  std::string answer;     // exact text to be generated before the end token
  std::string_view type;  // "price", "place", ...
};

struct CaseOptions {
  uint64_t seed = 1;
  int facts = 16;            // in every shop
  int samples = 500;         // questions in all
  int per_shop = 32;         // most questions to one shop: its users
  bool closed_book = false;  // the same questions, the facts removed
};

// Held-out shops: no (key, value) pair of theirs occurs in training.
std::vector<Case> cases(const CaseOptions& options);

}  // namespace coppice::storefront
