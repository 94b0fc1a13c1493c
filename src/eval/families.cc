#include "eval/families.h"

#include <array>
#include <cctype>

#include "base/check.h"
#include "eval/family_draft.h"

namespace coppice::families {
namespace {

constexpr std::array<FamilyInfo, kFamilies> kInfo = {{
    {Family::kNeedle, "needle", Haystack::kH1, false},
    {Family::kMultiKey, "multi-key", Haystack::kH1, false},
    {Family::kMultiValue, "multi-value", Haystack::kH1, false},
    {Family::kMultiQuery, "multi-query", Haystack::kH1, false},
    {Family::kUuid, "uuid", Haystack::kH3, false},
    {Family::kVariables, "variables", Haystack::kH1, false},
    {Family::kLookup, "lookup", Haystack::kH3, false},
    {Family::kCounting, "counting", Haystack::kH1, false},
    {Family::kSystemPrompt, "system-prompt", Haystack::kH3, true},
    {Family::kConditioned, "conditioned", Haystack::kH2, true},
    {Family::kMarkov, "markov", Haystack::kH3, true},
    {Family::kCopy, "copy", Haystack::kH1, false},
}};

constexpr std::array<std::string_view, 4> kHaystacks = {"h0", "h1", "h2", "h3"};

Asks write(Family family, Draft& draft, Words& words, const TaskOptions& options) {
  switch (family) {
    case Family::kNeedle:
      return write_needle(draft, words, options);
    case Family::kMultiKey:
      return write_multi_key(draft, words, options);
    case Family::kMultiValue:
      return write_multi_value(draft, words, options);
    case Family::kMultiQuery:
      return write_multi_query(draft, words, options);
    case Family::kUuid:
      return write_uuid(draft, words, options);
    case Family::kVariables:
      return write_variables(draft, words, options);
    case Family::kLookup:
      return write_lookup(draft, words, options);
    case Family::kCounting:
      return write_counting(draft, words, options);
    case Family::kCopy:
      return write_copy(draft, words, options);
    case Family::kSystemPrompt:
    case Family::kConditioned:
    case Family::kMarkov:
      break;  // samples of their own
  }
  CHECK(false);
}

}  // namespace

std::span<const FamilyInfo> all_families() { return kInfo; }

const FamilyInfo& info(Family family) { return kInfo[static_cast<size_t>(family)]; }

bool has_level(const FamilyInfo& family, Haystack haystack) {
  if (haystack == family.haystack) return true;
  return !family.fixed_haystack && haystack != Haystack::kH3;
}

std::optional<Family> family_named(std::string_view name) {
  for (const FamilyInfo& one : kInfo) {
    if (one.name == name) return one.family;
  }
  return std::nullopt;
}

std::string_view haystack_name(Haystack haystack) {
  return kHaystacks[static_cast<size_t>(haystack)];
}

std::optional<Haystack> haystack_named(std::string_view name) {
  for (size_t i = 0; i < kHaystacks.size(); ++i) {
    if (kHaystacks[i] == name) return static_cast<Haystack>(i);
  }
  return std::nullopt;
}

TaskSample make_task(Family family, uint64_t seed, const TaskOptions& options) {
  CHECK(options.tokens >= kMinTokens && options.tokens <= kMaxTokens);
  CHECK(options.hops >= 1 && options.hops <= kMaxHops && options.facts >= 0 && options.asks >= 0);
  Random random(storefront::hash_text(info(family).name) ^ seed);
  if (family == Family::kSystemPrompt) return make_system_prompt(random, options);
  if (family == Family::kConditioned) return make_conditioned(random, options);
  if (family == Family::kMarkov) return make_markov(random, options);
  Words words(random, options.haystack.value_or(info(family).haystack), options.split);
  Draft draft(options.tokens, words.head());
  Asks asks = write(family, draft, words, options);
  return draft.finish(random, std::move(asks));
}

int count_tokens(std::string_view text) {
  int tokens = 0;
  bool in_word = false;
  for (const char c : text) {
    const bool word = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (word && !in_word) ++tokens;
    if (!word && c != ' ') ++tokens;
    in_word = word;
  }
  return tokens;
}

}  // namespace coppice::families
