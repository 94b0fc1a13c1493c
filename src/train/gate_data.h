// What:    what gates are trained and judged on: tasks of the families, windows of text files, and
//          contexts that are repeated after a marker.
// Owns:    the tokens of its text files.
// Threads: const use from any thread.
// Fails:   open: files, tokenizers (kCorrupt, kUnsupported), texts too short (kInvalidArgument).
//
// A sample is a prompt, read before anything is asked, and what follows it; the loss stands on
// spans of what follows. So no flag of the prompt can know an answer, whatever the gate's kind.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coppice/error.h"
#include "eval/families.h"
#include "text/tokenizer.h"

namespace coppice::train {

struct GateSample {
  std::vector<int32_t> ids;
  int prompt = 0;                            // tokens of it
  std::vector<std::pair<int, int>> answers;  // [begin, end) tokens that are predicted, begin >= 1
  bool dense = false;                        // text: judged token by token, not span by span
};

struct GateDataOptions {
  std::vector<families::Family> families;
  std::vector<std::string> texts;  // files; their last tenth is held out
  double copy_share = 0.2;         // of the samples: the context once more, after the marker
  std::string copy_marker = "\n";
};

// A row of the report.
struct GateCase {
  std::string name;       // "needle", "variables-4", "text:book.txt"
  bool held_out = false;  // nothing like it was trained on
};

class GateData {
 public:
  // tokenizer_json and where it stands; vocab_size: of the model; eos: what ends an answer, -1:
  // nothing.
  static Expected<GateData> open(const GateDataOptions& options, const std::string& tokenizer_json,
                                 const std::string& where, int32_t vocab_size, int32_t eos);

  // A training sample of about `length` tokens, a function of the seed.
  GateSample draw(uint64_t seed, int length) const;
  // A context and itself once more.
  GateSample draw_copy(uint64_t seed, int length) const;

  const std::vector<GateCase>& cases() const { return cases_; }
  // Sample `number` of a case, of facts and text that no training sample has; its prompt has about
  // `length` tokens and is followed by `asks` questions at most.
  GateSample exam(size_t which, uint64_t number, int length, int asks) const;

 private:
  struct Text {
    std::string name;
    std::vector<int32_t> ids;
    size_t held_out = 0;  // where the last tenth begins
  };

  GateData(const GateDataOptions& options, std::unique_ptr<text::Tokenizer> tokenizer, int32_t eos);
  Status read_text(const std::string& file);
  std::vector<int32_t> draw_context(storefront::Random& random, int tokens) const;
  families::TaskSample draw_task(storefront::Random& random, int length) const;
  GateSample with_asks(const families::TaskSample& task, int length) const;
  GateSample continued(std::vector<int32_t> ids) const;
  std::vector<int32_t> window_of(const Text& text, bool held_out, storefront::Random& random,
                                 int tokens) const;
  bool draws_text(storefront::Random& random) const;

  GateDataOptions options_;
  std::unique_ptr<text::Tokenizer> tokenizer_;
  int32_t eos_;
  std::vector<int32_t> marker_;
  std::vector<families::Family> trained_;
  std::vector<Text> texts_;
  std::vector<GateCase> cases_;
  std::vector<families::Family> exam_families_;  // of the first cases; the texts follow
};

}  // namespace coppice::train
