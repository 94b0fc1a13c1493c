// What:    a family's questions as test cases: whole prompts and the answers that count.
// Owns:    plain values; a pure function of its arguments.
// Threads: any.
// Fails:   as make_task; CHECKs samples >= 0, per_context >= 1 and a family that asks (not markov).
#pragma once

#include "eval/families.h"
#include "eval/storefront_cases.h"

namespace coppice::families {

struct CaseOptions {
  uint64_t seed = 1;
  Family family = Family::kNeedle;
  TaskOptions task;      // its split is held out, its asks are per_context
  int samples = 500;     // questions in all
  int per_context = 32;  // most questions to one context: its users
};

// Held-out tasks; every case's type is the family's name.
std::vector<storefront::Case> cases(const CaseOptions& options);

}  // namespace coppice::families
