// What:    seeded shops (facts, questions, answers): what the bundled model learns.
// Owns:    its own strings; the same on every machine and standard library.
// Threads: none of its own; distinct objects may be used from distinct threads.
// Fails:   never for 0 <= facts <= kMaxFacts; CHECKs beyond.
//
// Prompt form (one user's turn; the shop's text is the shared prefix):
//   The oak lamp costs 48 euro 15. The big hall opens 10 h 35. ...\n      <- Shop::prompt()
//   The oak lamp costs?                                                  <- Question::text
//   -> " 48 euro 15" and then <|eos|>                                    <- Question::answer
// Every fact and every question with its answer has one length in tokens (8 and 9 with <|eos|>),
// because every word here is one token of the bundled tokenizer.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace coppice::storefront {

inline constexpr int kMaxFacts = 1024;
inline constexpr int kTokensPerFact = 8;

// Seeded generator (splitmix64): the same numbers everywhere, unlike std distributions.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  // Uniform in [0, n), n >= 1.
  uint32_t below(uint32_t n);
  // Uniform in [0, 1).
  double uniform();
  uint64_t state() const { return state_; }

 private:
  uint64_t state_;
};

// Which (key, value) pairs a shop may state. A hash of the whole fact decides, so that no pair of a
// held-out shop can have been seen in training; kAny ignores the split.
enum class Split { kTrain, kHeldOut, kAny };

enum class Attribute { kPrice, kPlace, kRule, kHours };
inline constexpr int kAttributes = 4;
std::string_view attribute_name(Attribute attribute);

struct Fact {
  Attribute attribute = Attribute::kPrice;
  std::string key;    // "oak lamp costs"
  std::string value;  // "48 euro 15"

  std::string sentence() const;  // "The oak lamp costs 48 euro 15."
  Split split() const;           // kTrain or kHeldOut
};

struct Question {
  std::string text;    // "The oak lamp costs?"
  std::string answer;  // " 48 euro 15", followed by <|eos|>
  Attribute attribute = Attribute::kPrice;
  int fact = 0;  // index of the fact that answers it
};

class Shop {
 public:
  Shop(uint64_t seed, std::vector<Fact> facts) : seed_(seed), facts_(std::move(facts)) {}

  const std::vector<Fact>& facts() const& { return facts_; }
  std::vector<Fact> facts() && { return std::move(facts_); }
  // All facts and a newline; only the newline for a shop without facts.
  std::string prompt() const;
  // One question a fact, in an order drawn from the seed.
  std::vector<Question> questions() const;

 private:
  uint64_t seed_;
  std::vector<Fact> facts_;
};

// A shop with n_facts distinct keys. About a quarter of the facts speak of a subject named before.
Shop make_shop(uint64_t seed, int n_facts, Split split);

// The words by what they are; each is one token after a space, as are the numbers 10 to 99.
struct WordLists {
  std::span<const std::string_view> adjectives, products, rooms, names;
};
WordLists word_lists();

// What decides every split: FNV-1a over the text, mixed once more.
uint64_t hash_text(std::string_view text);
Split split_of(std::string_view text);  // kTrain or kHeldOut

// Every word of the language once (for the tokenizer's tests and its training text).
std::vector<std::string> words();

}  // namespace coppice::storefront
