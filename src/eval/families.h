// What:    twelve families of tasks over long contexts, in the storefront's words: what is asked is
//          hidden while the context is read, so that they measure what a cache may forget.
// Owns:    plain values; a pure function of its arguments, the same on every machine.
// Threads: any.
// Fails:   CHECKs tokens in [kMinTokens, kMaxTokens], hops in [1, kMaxHops], facts >= 0.
//
// One user's turn is `context + question`; the answer follows, then <|eos|>. A question never
// changes its context. Every word and mark is one token of the bundled tokenizer.
//   needle,      facts, few asked or many      The oak lamp costs?    -> 48 euro 15
//   multi-key
//   multi-value  three facts of a subject      The oak lamp?          -> all three sentences
//   multi-query  facts                         A The .. B The .. ?    -> both, in that order
//   uuid         The (8 words) is (8 words).   The (8 words) is?      -> 8 words
//   variables    The jug costs oak lamp. ...   The tin jug costs?     -> oak lamp costs 48 euro 15
//   lookup       The oak lamp is Ford 39. ...  The oak lamp is?       -> Ford 39
//   counting     The hall is oak lamp. ...     The hall is?           -> the commonest item
//   system-prompt  a storefront shop           its questions          -> their answers
//   conditioned  The key is at! facts of all   The oak lamp?          -> its fact of that kind
//   markov       a chain drawn anew each time  none: every token counts
//   copy         The (a run of words).         The (its first 3)?     -> the rest of the run
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eval/storefront.h"

namespace coppice::families {

using storefront::Split;

inline constexpr int kMinTokens = 64;
inline constexpr int kMaxTokens = 8192;
inline constexpr int kMaxHops = 8;

enum class Family {
  kNeedle,
  kMultiKey,
  kMultiValue,
  kMultiQuery,
  kUuid,
  kVariables,
  kLookup,
  kCounting,
  kSystemPrompt,
  kConditioned,
  kMarkov,
  kCopy,
};
inline constexpr int kFamilies = 12;

// What stands between the facts that are asked for.
enum class Haystack {
  kH0,  // words that no fact uses: an eviction by the word alone finds the facts
  kH1,  // the facts' words in sentences of another form
  kH2,  // facts of the same form; the context's first line says which may be asked: "The key is
        // oak!"
  kH3,  // nothing: every fact may be asked (lookup, uuid and what has no haystack)
};

struct FamilyInfo {
  Family family;
  std::string_view name;  // "multi-key", as flags and reports spell it
  Haystack haystack;      // the level where none is asked for
  bool fixed_haystack;    // it has that level only
};
std::span<const FamilyInfo> all_families();
const FamilyInfo& info(Family family);
bool has_level(const FamilyInfo& family, Haystack haystack);
std::optional<Family> family_named(std::string_view name);
std::string_view haystack_name(Haystack haystack);  // "h0"
std::optional<Haystack> haystack_named(std::string_view name);

struct TaskOptions {
  int tokens = 512;                  // of the context, about: within a sentence of it
  std::optional<Haystack> haystack;  // none: the family's own
  int facts = 0;                // that may be asked (runs, mentioned rooms, ...); 0: by the length
  int hops = 2;                 // variables: links from the name asked to its price
  int asks = 32;                // at most
  Split split = Split::kTrain;  // of the facts; a chain goes with its price
};

struct Ask {
  std::string question;
  std::string answer;  // followed by <|eos|>
  int hops = 0;        // variables: links; 0 elsewhere
  std::vector<std::pair<int, int>>
      evidence;  // [begin, end) of the sentences it rests on, in bytes of the context
};

struct TaskSample {
  std::string context;    // ends with a newline
  std::vector<Ask> asks;  // independent of each other; empty for markov
};

TaskSample make_task(Family family, uint64_t seed, const TaskOptions& options);

// Tokens of the bundled tokenizer: words and marks of a text of this language.
int count_tokens(std::string_view text);

}  // namespace coppice::families
