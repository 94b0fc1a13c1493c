// What:    the families of tasks as training data and as an exam: which, how long, how many.
// Owns:    nothing.
// Threads: any; torch's own in the exam.
// Fails:   the tokenizer's errors.
#pragma once

#include <cstdint>
#include <vector>

#include "eval/families.h"
#include "train/lesson.h"
#include "train/twin.h"

namespace coppice::train {

// Lessons of up to `tokens`; left by accuracy after min_steps, in any case after max_steps.
struct FamilyStage {
  int tokens;
  int64_t min_steps, max_steps;
};
const std::vector<FamilyStage>& family_stages();

// The length of one step's lessons: a quarter of the stage's up to all of it, log-uniform.
int draw_length(storefront::Random& random, int stage_tokens);

// What a fact that may be asked takes of a context, about.
int fact_tokens(families::Family family, const families::TaskOptions& options);

// Empty: all are.
bool is_taught(const std::vector<families::Family>& taught, families::Family family);
// One lesson of about `tokens`, context and questions; those that are taught in the stage's shares.
Expected<Lesson> family_lesson(const Bpe& bpe, uint64_t seed, int stage, int tokens,
                               const std::vector<families::Family>& taught = {});

struct FamilyExam {
  int tokens = 512;  // of the contexts
  std::optional<families::Haystack> haystack;
  int hops = 2;
  int budget = 8192;   // tokens of all contexts of a family, about
  bool apart = false;  // every question directly after its context, as a user asks it
  int questions = 24;  // most to one context
  uint64_t seed = 0;
};

struct FamilyScore {
  families::Family family{};
  int asked = 0, exact = 0;
  int64_t tokens = 0;  // predicted: of answers, or all of a text without questions (markov)
  double nats = 0;     // their negative log likelihood, summed
  // Share answered exactly.
  double rate() const { return asked > 0 ? static_cast<double>(exact) / asked : 0.0; }
  double nats_per_token() const { return tokens > 0 ? nats / static_cast<double>(tokens) : 0.0; }
};

// On held-out facts only.
Expected<FamilyScore> examine_family(const Twin& twin, const Bpe& bpe, families::Family family,
                                     const FamilyExam& exam);

}  // namespace coppice::train
