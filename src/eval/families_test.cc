#include "eval/families.h"

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

namespace coppice::families {
namespace {

using storefront::split_of;

// Every level a family has.
std::vector<Haystack> levels(const FamilyInfo& one) {
  std::vector<Haystack> out;
  for (const Haystack level : {Haystack::kH0, Haystack::kH1, Haystack::kH2, Haystack::kH3}) {
    if (has_level(one, level)) out.push_back(level);
  }
  return out;
}

TaskSample sample(Family family, uint64_t seed, int tokens, std::optional<Haystack> level = {},
                  Split split = Split::kTrain) {
  TaskOptions options;
  options.tokens = tokens;
  options.haystack = level;
  options.split = split;
  return make_task(family, seed, options);
}

// The sentences that end with a full stop (filler ends with a semicolon).
std::vector<std::string> facts_in(const std::string& context) {
  std::vector<std::string> out;
  size_t begin = 0;
  for (size_t i = 0; i < context.size(); ++i) {
    const char c = context[i];
    if (c != '.' && c != ';' && c != '!' && c != '\n') continue;
    if (c == '.') out.push_back(context.substr(begin, i + 1 - begin));
    begin = i + 1;
    if (begin < context.size() && context[begin] == ' ') ++begin;
  }
  return out;
}

// " V" such that "The KEY V." stands once; fails the test if not.
std::string look_up(const std::vector<std::string>& facts, const std::string& key) {
  std::set<std::string> values;
  for (const std::string& fact : facts) {
    if (fact.starts_with("The " + key + " ")) {
      values.insert(fact.substr(4 + key.size(), fact.size() - 5 - key.size()));
    }
  }
  EXPECT_EQ(values.size(), 1u) << key;
  return values.empty() ? "" : *values.begin();
}

std::string key_of(const std::string& question) {  // "The KEY?"
  EXPECT_TRUE(question.starts_with("The ") && question.ends_with("?")) << question;
  return question.substr(4, question.size() - 5);
}

std::string derive_multi_value(const std::vector<std::string>& facts, const Ask& ask) {
  std::string out;
  for (const char* verb : {" costs", " is at", " needs form"}) {
    const std::string key = key_of(ask.question) + verb;
    if (!out.empty()) out += '.';
    out += " The ";
    out += key;
    out += look_up(facts, key);
  }
  return out;
}

std::string derive_multi_query(const std::vector<std::string>& facts, const Ask& ask) {
  std::string out;
  const std::regex part(" ([A-D]) The (.*?)(?= [A-D] The |\\?)");
  for (std::sregex_iterator i(ask.question.begin(), ask.question.end(), part), end; i != end; ++i) {
    const std::string label = (*i)[1], key = (*i)[2];
    out.append(" ").append(label).append(" The ").append(key).append(look_up(facts, key));
  }
  return out;
}

std::string derive_variables(const std::vector<std::string>& facts, const Ask& ask) {
  std::string key = key_of(ask.question), out;
  for (int hop = 0;; ++hop) {
    const std::string value = look_up(facts, key);
    out += value;
    if (value.find("euro") != std::string::npos || hop > kMaxHops) {
      EXPECT_EQ(hop, ask.hops);
      return out;
    }
    out += " costs";
    key = value.substr(1) + " costs";
  }
}

std::string derive_counting(const std::vector<std::string>& facts, const Ask& ask) {
  std::map<std::string, int> times;
  const std::string start = "The " + key_of(ask.question);
  for (const std::string& fact : facts) {
    if (fact.starts_with(start + " ")) {
      ++times[fact.substr(start.size(), fact.size() - start.size() - 1)];
    }
  }
  const auto more = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto top = std::max_element(times.begin(), times.end(), more);
  for (const auto& [thing, n] : times) EXPECT_TRUE(thing == top->first || n < top->second);
  return top->first;
}

std::string derive_conditioned(const std::string& context, const std::vector<std::string>& facts,
                               const Ask& ask) {
  const std::string line = context.substr(0, context.find('!'));
  const std::string key = key_of(ask.question) + line.substr(std::string("The key").size());
  return std::string(" The ").append(key).append(look_up(facts, key));
}

std::string derive_copy(const std::vector<std::string>& facts, const Ask& ask) {
  return look_up(facts, key_of(ask.question));
}

std::string derive(Family family, const TaskSample& task, const Ask& ask) {
  const auto facts = facts_in(task.context);
  switch (family) {
    case Family::kMultiValue:
      return derive_multi_value(facts, ask);
    case Family::kMultiQuery:
      return derive_multi_query(facts, ask);
    case Family::kVariables:
      return derive_variables(facts, ask);
    case Family::kCounting:
      return derive_counting(facts, ask);
    case Family::kConditioned:
      return derive_conditioned(task.context, facts, ask);
    case Family::kCopy:
      return derive_copy(facts, ask);
    default:
      return look_up(facts, key_of(ask.question));
  }
}

std::set<std::string> words_of(std::string text) {
  for (char& c : text) {
    if (c == '.' || c == ';' || c == '?' || c == '!') c = ' ';
  }
  std::istringstream in(text);
  std::set<std::string> out;
  for (std::string word; in >> word;) out.insert(word);
  return out;
}

TEST(Families, NamesAndLevelsAreReadBack) {
  ASSERT_EQ(all_families().size(), static_cast<size_t>(kFamilies));
  for (const FamilyInfo& one : all_families()) {
    EXPECT_EQ(family_named(one.name), one.family);
    EXPECT_EQ(&info(one.family), &one);
  }
  EXPECT_FALSE(family_named("needles"));
  EXPECT_EQ(haystack_named("h2"), Haystack::kH2);
  EXPECT_FALSE(haystack_named("h4"));
  EXPECT_TRUE(has_level(info(Family::kLookup), Haystack::kH3));
  EXPECT_FALSE(has_level(info(Family::kNeedle), Haystack::kH3));
  EXPECT_FALSE(has_level(info(Family::kMarkov), Haystack::kH1));
}

TEST(Families, SameSeedSameTaskOtherSeedOtherTask) {
  for (const FamilyInfo& one : all_families()) {
    const TaskSample a = sample(one.family, 5, 512), b = sample(one.family, 5, 512);
    EXPECT_EQ(a.context, b.context);
    ASSERT_EQ(a.asks.size(), b.asks.size());
    for (size_t i = 0; i < a.asks.size(); ++i) EXPECT_EQ(a.asks[i].question, b.asks[i].question);
    EXPECT_NE(a.context, sample(one.family, 6, 512).context) << one.name;
  }
}

// What is asked is hidden while the context is read: how many questions follow changes nothing.
TEST(Families, QuestionsDoNotChangeTheContext) {
  for (const FamilyInfo& one : all_families()) {
    TaskOptions few, many;
    few.asks = 1;
    many.asks = 64;
    EXPECT_EQ(make_task(one.family, 9, few).context, make_task(one.family, 9, many).context);
  }
}

TEST(Families, AnswersFollowFromTheContext) {
  for (const FamilyInfo& one : all_families()) {
    for (const Haystack level : levels(one)) {
      for (uint64_t seed = 0; seed < 6; ++seed) {
        const TaskSample task = sample(one.family, seed, 700, level, Split::kHeldOut);
        EXPECT_EQ(task.asks.empty(), one.family == Family::kMarkov);
        for (const Ask& ask : task.asks) {
          EXPECT_EQ(derive(one.family, task, ask), ask.answer)
              << one.name << " " << haystack_name(level) << " " << ask.question;
          EXPECT_GE(count_tokens(ask.answer), 2);
        }
      }
    }
  }
}

TEST(Families, VariablesTakeTheHopsAskedFor) {
  for (int hops = 1; hops <= 4; ++hops) {
    TaskOptions options;
    options.hops = hops;
    const TaskSample task = make_task(Family::kVariables, 3, options);
    ASSERT_FALSE(task.asks.empty());
    for (const Ask& ask : task.asks) {
      EXPECT_EQ(ask.hops, hops);
      EXPECT_EQ(ask.evidence.size(), static_cast<size_t>(hops) + 1);
      EXPECT_EQ(derive_variables(facts_in(task.context), ask), ask.answer);
    }
  }
}

// Without its evidence no answer follows any more; each piece of it is a whole sentence.
TEST(Families, EvidenceIsWhatTheAnswerRestsOn) {
  for (const FamilyInfo& one : all_families()) {
    for (const Haystack level : levels(one)) {
      const TaskSample task = sample(one.family, 11, 400, level);
      for (const Ask& ask : task.asks) {
        ASSERT_FALSE(ask.evidence.empty());
        std::string found;
        for (const auto& [begin, end] : ask.evidence) {
          const auto length = static_cast<size_t>(end - begin);
          const std::string sentence = task.context.substr(static_cast<size_t>(begin), length);
          EXPECT_TRUE(sentence.starts_with("The ") && sentence.ends_with(".")) << sentence;
          EXPECT_EQ(facts_in(sentence).size(), 1u) << sentence;
          found += sentence + " ";
        }
        TaskSample alone = task;
        alone.context = task.context.substr(0, task.context.find('\n') + 1) + found;
        if (!task.context.starts_with("The key")) alone.context = found;
        EXPECT_EQ(derive(one.family, alone, ask), ask.answer) << one.name;
      }
    }
  }
}

TEST(Families, LengthsAreNearTheTarget) {
  for (const FamilyInfo& one : all_families()) {
    for (const Haystack level : levels(one)) {
      for (const int tokens : {kMinTokens, 256, 1024, 4096}) {
        const int got = count_tokens(sample(one.family, 2, tokens, level).context);
        EXPECT_LE(got, tokens) << one.name << " " << haystack_name(level);
        // Within a sentence: of copy an eighth of the context, of counting eight mentions.
        const int sentence = one.family == Family::kCopy       ? tokens / 8 + 2
                             : one.family == Family::kCounting ? 56
                                                               : 20;
        EXPECT_GT(got, tokens - sentence) << one.name << " " << haystack_name(level);
      }
    }
  }
}

TEST(Families, SplitsShareNoFact) {
  for (const FamilyInfo& one : all_families()) {
    if (one.family == Family::kVariables) continue;  // goes with its prices, below
    for (uint64_t seed = 0; seed < 5; ++seed) {
      for (const Split split : {Split::kTrain, Split::kHeldOut}) {
        const TaskSample task = sample(one.family, seed, 400, std::nullopt, split);
        for (const Ask& ask : task.asks) {
          for (const auto& [begin, end] : ask.evidence) {
            const auto length = static_cast<size_t>(end - begin);
            EXPECT_EQ(split_of(task.context.substr(static_cast<size_t>(begin), length)), split);
          }
        }
      }
    }
  }
  for (const Split split : {Split::kTrain, Split::kHeldOut}) {
    const TaskSample task = sample(Family::kVariables, 1, 400, std::nullopt, split);
    for (const std::string& fact : facts_in(task.context)) {
      if (fact.find("euro") == std::string::npos) continue;
      EXPECT_EQ(split_of(fact), split) << fact;
    }
    const std::string text = sample(Family::kMarkov, 1, 400, std::nullopt, split).context;
    EXPECT_EQ(split_of(text.substr(0, text.size() - 1)), split);
  }
}

TEST(Families, H0SharesNoWordBetweenFactsAndFiller) {
  for (const Family family : {Family::kNeedle, Family::kMultiKey, Family::kMultiValue,
                              Family::kUuid, Family::kVariables, Family::kCopy}) {
    std::set<std::string> facts, filler;
    for (uint64_t seed = 0; seed < 20; ++seed) {
      std::string context = sample(family, seed, 600, Haystack::kH0).context;
      for (const std::string& fact : facts_in(context)) {
        facts.merge(words_of(fact));
        context.erase(context.find(fact), fact.size());
      }
      filler.merge(words_of(context));
    }
    for (const std::string& word : filler) {
      if (word == "The") continue;
      EXPECT_EQ(facts.count(word), 0u) << word;
    }
    EXPECT_GT(filler.size(), 20u);
  }
}

// At h2 the first line alone tells the facts that may be asked from those that fill.
TEST(Families, H2NamesWhatMayBeAsked) {
  for (const FamilyInfo& one : all_families()) {
    if (one.fixed_haystack) continue;
    const TaskSample task = sample(one.family, 21, 800, Haystack::kH2);
    ASSERT_TRUE(task.context.starts_with("The key is ")) << one.name;
    const std::string topic = task.context.substr(11, task.context.find('!') - 11);
    int of_topic = 0, others = 0;
    for (const std::string& fact : facts_in(task.context)) {
      ++(fact.starts_with("The " + topic + " ") ? of_topic : others);
    }
    EXPECT_GT(of_topic, 0) << one.name;
    EXPECT_GT(others, 0) << one.name;
    EXPECT_EQ(task.context.find(';'), std::string::npos) << one.name;
    for (const Ask& ask : task.asks) {
      EXPECT_NE(ask.question.find("The " + topic + " "), std::string::npos) << one.name;
    }
  }
}

TEST(Families, SystemPromptIsTheShop) {
  TaskOptions options;
  options.tokens = 4100;
  options.facts = 512;
  options.split = Split::kHeldOut;
  const TaskSample task = make_task(Family::kSystemPrompt, 4, options);
  EXPECT_EQ(facts_in(task.context).size(), 512u);
  EXPECT_EQ(count_tokens(task.context), 512 * storefront::kTokensPerFact + 1);
}

TEST(Families, MarkovRepeatsItsTransitions) {
  const TaskSample task = sample(Family::kMarkov, 8, 2048);
  std::istringstream in(task.context);
  std::map<std::string, std::set<std::string>> next;
  std::string word, last;
  while (in >> word) {
    if (!last.empty()) next[last].insert(word);
    last = word;
  }
  for (const auto& [from, to] : next) EXPECT_LE(to.size(), 3u) << from;
  EXPECT_GT(next.size(), 8u);
}

}  // namespace
}  // namespace coppice::families
