// The families whose facts are key and value: needle to lookup, conditioned, the shop.
#include <algorithm>
#include <array>
#include <cstddef>

#include "eval/family_draft.h"

namespace coppice::families {
namespace {

constexpr std::array<Attribute, 3> kClasses = {Attribute::kPrice, Attribute::kPlace,
                                               Attribute::kRule};
constexpr int kFactTokens = 8;
constexpr int kTopicSubjects = 80;  // of the 96 that share an adjective

Attribute draw_class(Random& random) { return kClasses[random.below(kClasses.size())]; }

// Facts that may be asked: the given number, or a quarter of the length; a topic has no more.
int facts_of(const TaskOptions& options, const Words& words, int tokens_each) {
  const int by_length = std::max(1, options.tokens / 4 / tokens_each);
  const int fitting = std::max(1, (options.tokens - 16) / tokens_each);
  const int wanted = std::min(options.facts > 0 ? options.facts : by_length, fitting);
  return words.haystack() == Haystack::kH2 ? std::min(wanted, kTopicSubjects) : wanted;
}

template <typename T>
void shuffle(Random& random, std::vector<T>& list) {
  for (size_t i = list.size(); i > 1; --i) {
    std::swap(list[i - 1], list[random.below(static_cast<uint32_t>(i))]);
  }
}

void keep(Random& random, Asks& asks, int most) {
  shuffle(random, asks);
  if (asks.size() > static_cast<size_t>(most)) asks.resize(static_cast<size_t>(most));
}

Fact draw_fact(Words& words, const std::string& subject, Attribute attribute) {
  Fact fact{attribute, words.key(subject, attribute), {}};
  fact.value = words.value(fact.key, attribute);
  return fact;
}

std::string any_fact(Words& words) {
  return draw_fact(words, words.subject(false), draw_class(words.random())).sentence();
}

// n facts of distinct keys, about a quarter of them on a subject named before, added to the draft.
std::vector<std::pair<Fact, int>> add_facts(Draft& draft, Words& words, int n) {
  Random& random = words.random();
  std::vector<std::pair<Fact, int>> facts;
  std::vector<std::pair<std::string, std::vector<Attribute>>>
      open;  // classes a subject still lacks
  for (int i = 0; i < n; ++i) {
    if (open.empty() || random.below(4) != 0) {
      std::vector<Attribute> classes(kClasses.begin(), kClasses.end());
      shuffle(random, classes);
      open.emplace_back(words.subject(), classes);
      std::swap(open.back(), open.front());
    }
    const size_t at = open.front().second.size() == kClasses.size()
                          ? 0
                          : random.below(static_cast<uint32_t>(open.size()));
    auto& [subject, classes] = open[at];
    const Fact fact = draw_fact(words, subject, classes.back());
    classes.pop_back();
    if (classes.empty()) open.erase(open.begin() + static_cast<std::ptrdiff_t>(at));
    facts.emplace_back(fact, draft.add(fact.sentence()));
  }
  return facts;
}

Asks ask_facts(Draft& draft, Words& words, const TaskOptions& options, int n) {
  Asks asks;
  for (const auto& [fact, at] : add_facts(draft, words, n)) {
    asks.push_back({"The " + fact.key + "?", " " + fact.value, {at}});
  }
  keep(words.random(), asks, options.asks);
  fill(draft, words, [&] { return any_fact(words); });
  return asks;
}

}  // namespace

Asks write_needle(Draft& draft, Words& words, const TaskOptions& options) {
  return ask_facts(draft, words, options, std::max(1, options.facts));
}

Asks write_multi_key(Draft& draft, Words& words, const TaskOptions& options) {
  return ask_facts(draft, words, options, facts_of(options, words, kFactTokens));
}

Asks write_multi_value(Draft& draft, Words& words, const TaskOptions& options) {
  const int subjects = facts_of(options, words, 3 * kFactTokens);
  Asks asks;
  for (int i = 0; i < subjects; ++i) {
    const std::string subject = words.subject();
    OpenAsk& ask = asks.emplace_back();
    ask.question = "The " + subject + "?";
    for (const Attribute attribute : kClasses) {
      const std::string sentence = draw_fact(words, subject, attribute).sentence();
      ask.answer += " " + sentence;
      ask.rests_on.push_back(draft.add(sentence));
    }
    ask.answer.pop_back();  // <|eos|> stands for the last full stop
  }
  keep(words.random(), asks, options.asks);
  fill(draft, words, [&] { return any_fact(words); });
  return asks;
}

Asks write_multi_query(Draft& draft, Words& words, const TaskOptions& options) {
  constexpr std::array<std::string_view, 4> kLabels = {" A", " B", " C", " D"};
  Random& random = words.random();
  auto facts = add_facts(draft, words, facts_of(options, words, kFactTokens));
  shuffle(random, facts);
  Asks asks;
  for (size_t next = 0; next < facts.size();) {
    const size_t n = std::min(facts.size() - next, size_t{2} + random.below(3));
    if (n < 2 && !asks.empty()) break;
    OpenAsk& ask = asks.emplace_back();
    for (size_t i = 0; i < n; ++i, ++next) {
      const Fact& fact = facts[next].first;
      const std::string key = std::string(kLabels[i]) + " The " + fact.key;
      ask.question += key;
      ask.answer += key + " " + fact.value;
      ask.rests_on.push_back(facts[next].second);
    }
    ask.question += "?";
  }
  keep(random, asks, options.asks);
  fill(draft, words, [&] { return any_fact(words); });
  return asks;
}

Asks write_variables(Draft& draft, Words& words, const TaskOptions& options) {
  const int links = options.hops;
  const auto chain = [&](OpenAsk* ask) {
    std::string named = words.subject();
    const Fact price = draw_fact(words, named, Attribute::kPrice);
    std::vector<std::string> sentences = {price.sentence()};
    std::string answer = " " + price.value;
    for (int i = 0; i < links; ++i) {
      // The price puts the chain into its split; names alone tell nothing.
      const std::string name = words.subject();
      sentences.push_back("The " + name + " costs " + named + ".");
      answer = " " + named + " costs" + answer;
      named = name;
    }
    for (std::string& sentence : sentences) ask->rests_on.push_back(draft.add(std::move(sentence)));
    ask->question = "The " + named + " costs?";
    ask->answer = answer;
    ask->hops = links;
  };
  const int each = kFactTokens * (links + 1);
  int chains = facts_of(options, words, each);
  if (words.haystack() == Haystack::kH2) {
    chains = std::max(1, std::min(chains, kTopicSubjects / (links + 1)));
  }
  Asks asks(static_cast<size_t>(chains));
  for (OpenAsk& ask : asks) chain(&ask);
  keep(words.random(), asks, options.asks);
  // At h2 what fills are other chains' sentences, apart: prices and references.
  std::string last = words.haystack() == Haystack::kH2 ? words.subject(false) : "";
  fill(draft, words, [&] {
    if (words.random().below(2) == 0) return any_fact(words);
    const std::string name = words.subject(false);
    std::string sentence = "The " + name + " costs " + last + ".";
    last = name;
    return sentence;
  });
  return asks;
}

Asks write_lookup(Draft& draft, Words& words, const TaskOptions& options) {
  constexpr int kPairTokens = 7;
  const auto fact = [&](bool of_topic) {
    Fact made{Attribute::kPlace, words.subject(of_topic) + " is", {}};
    made.value = words.value(made.key, Attribute::kPlace);
    return made;
  };
  const bool full = words.haystack() == Haystack::kH3;
  const int n = full && options.facts == 0 ? draft.room() / kPairTokens
                                           : facts_of(options, words, kPairTokens);
  Asks asks;
  for (int i = 0; i < n; ++i) {
    const Fact made = fact(true);
    asks.push_back({"The " + made.key + "?", " " + made.value, {draft.add(made.sentence())}});
  }
  keep(words.random(), asks, options.asks);
  fill(draft, words, [&] { return fact(false).sentence(); });
  return asks;
}

TaskSample make_conditioned(Random& random, const TaskOptions& options) {
  const Attribute asked = draw_class(random);
  Words words(random, Haystack::kH3, options.split);
  // "The key" and the verb: the class that will be asked.
  Draft draft(options.tokens, "The " + words.key("key", asked) + "!\n");
  const int fitting = draft.room() / (3 * kFactTokens);
  const int subjects = std::max(1, options.facts > 0 ? std::min(options.facts, fitting) : fitting);
  Asks asks;
  for (int i = 0; i < subjects; ++i) {
    const std::string subject = words.subject();
    for (const Attribute attribute : kClasses) {
      const Fact fact = draw_fact(words, subject, attribute);
      const int at = draft.add(fact.sentence());
      if (attribute != asked) continue;
      asks.push_back({"The " + subject + "?", " The " + fact.key + " " + fact.value, {at}});
    }
  }
  keep(random, asks, options.asks);
  while (draft.room() >= kFactTokens) draft.add(any_fact(words));
  return draft.finish(random, std::move(asks));
}

TaskSample make_system_prompt(Random& random, const TaskOptions& options) {
  const int by_length = (options.tokens - 1) / storefront::kTokensPerFact;
  const int n = std::min(options.facts > 0 ? options.facts : by_length, storefront::kMaxFacts);
  const auto shop = storefront::make_shop(random.next(), n, options.split);
  TaskSample sample;
  std::vector<std::pair<int, int>> spans;
  for (const Fact& fact : shop.facts()) {
    const int begin = spans.empty() ? 0 : spans.back().second + 1;
    spans.emplace_back(begin, begin + static_cast<int>(fact.sentence().size()));
  }
  sample.context = shop.prompt();
  for (const auto& question : shop.questions()) {
    if (sample.asks.size() == static_cast<size_t>(options.asks)) break;
    sample.asks.push_back(
        {question.text, question.answer, 0, {spans[static_cast<size_t>(question.fact)]}});
  }
  return sample;
}

}  // namespace coppice::families
