// The families over runs of words: uuid, counting, copy, markov.
#include <algorithm>
#include <array>
#include <set>

#include "eval/family_draft.h"

namespace coppice::families {
namespace {

std::string run_of(Words& words, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) {
    if (i > 0) out += ' ';
    out += words.word();
  }
  return out;
}

// A run whose first word is the topic where the words have one, and is not for of_topic = false.
std::string run_from(Words& words, int n, bool of_topic) {
  if (words.topic().empty()) return run_of(words, n);
  if (of_topic) return std::string(words.topic()) + " " + run_of(words, n - 1);
  std::string run;
  do {
    run = run_of(words, n);
  } while (run.starts_with(std::string(words.topic()) + " "));
  return run;
}

// Two subjects with the adjective or the product in common.
bool shares_a_word(const std::vector<std::string>& subjects, const std::string& subject) {
  const size_t gap = subject.find(' ');
  return std::any_of(subjects.begin(), subjects.end(), [&](const std::string& other) {
    return other.substr(0, other.find(' ')) == subject.substr(0, gap) ||
           other.substr(other.find(' ')) == subject.substr(gap);
  });
}

void keep(Random& random, Asks& asks, int most) {
  for (size_t i = asks.size(); i > 1; --i) {
    std::swap(asks[i - 1], asks[random.below(static_cast<uint32_t>(i))]);
  }
  if (asks.size() > static_cast<size_t>(most)) asks.resize(static_cast<size_t>(most));
}

}  // namespace

Asks write_uuid(Draft& draft, Words& words, const TaskOptions& options) {
  constexpr int kWords = 8, kTokens = 2 * kWords + 3;
  const auto pair = [&](bool of_topic, std::string& key, std::string& value) {
    return words.in_split([&] {
      key = run_from(words, kWords, of_topic);
      value = run_of(words, kWords);
      return "The " + key + " is " + value + ".";
    });
  };
  const bool full = words.haystack() == Haystack::kH3;
  const int fitting = std::max(1, draft.room() / kTokens);
  const int share = full ? fitting : std::max(1, fitting / 4);
  const int n = options.facts > 0 ? std::min(options.facts, fitting) : share;
  Asks asks;
  std::string key, value;
  for (int i = 0; i < n; ++i) {
    const int at = draft.add(pair(true, key, value));
    asks.push_back({"The " + key + " is?", " " + value, {at}});
  }
  keep(words.random(), asks, options.asks);
  fill(draft, words, [&] { return pair(false, key, value); });
  return asks;
}

// Rooms mention things; the question asks for what a room mentions most. The facts that may be
// asked are rooms: each mentions one thing four times, one twice and two once, of distinct words.
Asks write_counting(Draft& draft, Words& words, const TaskOptions& options) {
  constexpr std::array<int, 4> kTimes = {4, 2, 1, 1};
  constexpr int kTokens = 8 * 7, kTopicRooms = 10;  // 12 rooms share an adjective
  // A room's mentions in any order; which of them tell is noted where `ask` is given.
  const auto mention = [&](bool of_topic, OpenAsk* ask) {
    const std::string room = words.room(of_topic);
    std::vector<std::string> things;
    for (size_t kind = 0; kind < kTimes.size(); ++kind) {
      std::string thing;
      const std::string sentence = words.in_split([&] {
        do {
          words.release(thing);
          thing = words.subject(false);
        } while (shares_a_word(things, thing));
        return "The " + room + " is " + thing + ".";
      });
      things.push_back(thing);
      for (int n = 0; n < kTimes[kind]; ++n) {
        const int at = draft.add(sentence);
        if (ask != nullptr && kind == 0) ask->rests_on.push_back(at);
      }
    }
    if (ask == nullptr) return;
    ask->question = "The " + room + " is?";
    ask->answer = " " + things.front();
  };
  const int fitting = std::max(1, draft.room() / kTokens);
  int rooms = std::min(options.facts > 0 ? options.facts : std::max(1, fitting / 2), fitting);
  if (words.haystack() == Haystack::kH2) rooms = std::min(rooms, kTopicRooms);
  Asks asks(static_cast<size_t>(rooms));
  for (OpenAsk& ask : asks) mention(true, &ask);
  keep(words.random(), asks, options.asks);
  while (words.haystack() == Haystack::kH2 && draft.room() >= kTokens) mention(false, nullptr);
  fill(draft, words,
       [&] { return "The " + words.room(false) + " is " + words.subject(false) + "."; });
  return asks;
}

Asks write_copy(Draft& draft, Words& words, const TaskOptions& options) {
  constexpr int kShown = 3;
  // A sentence of an eighth of the context: 256 words at 2048 tokens.
  const int length = std::clamp(options.tokens / 8, 8, 1024);
  const auto make = [&](bool of_topic) {
    return words.in_split([&] { return "The " + run_from(words, length, of_topic) + "."; });
  };
  const int fitting = std::max(1, draft.room() / (length + 2));
  const int n = std::min(options.facts > 0 ? options.facts : std::max(1, fitting / 2), fitting);
  Asks asks;
  for (int i = 0; i < n; ++i) {
    const std::string sentence = make(true);
    size_t gap = sentence.find(' ');
    for (int w = 0; w < kShown; ++w) gap = sentence.find(' ', gap + 1);
    OpenAsk ask;
    ask.question = sentence.substr(0, gap) + "?";
    ask.answer = sentence.substr(gap, sentence.size() - 1 - gap);
    ask.rests_on = {draft.add(sentence)};
    asks.push_back(std::move(ask));
  }
  keep(words.random(), asks, options.asks);
  fill(draft, words, [&] { return make(false); });
  return asks;
}

// Each word of the document has three that may follow it, drawn for this document: what follows
// is learned from the context or not at all.
TaskSample make_markov(Random& random, const TaskOptions& options) {
  constexpr uint32_t kWordsOfText = 48, kFollowers = 3;
  const auto text = [&] {
    Words words(random, Haystack::kH3, Split::kAny);
    std::set<std::string> set;
    while (set.size() < kWordsOfText) set.insert(words.word());
    const std::vector<std::string> list(set.begin(), set.end());
    std::vector<std::array<uint32_t, kFollowers>> next(kWordsOfText);
    for (auto& followers : next) {
      for (uint32_t& follower : followers) follower = random.below(kWordsOfText);
    }
    std::string out = "The";
    uint32_t at = random.below(kWordsOfText);
    for (int tokens = 2; tokens < options.tokens; ++tokens) {
      out += ' ';
      out += list[at];
      const uint32_t roll = random.below(10);
      at = next[at][roll < 6 ? 0 : roll < 9 ? 1 : 2];
    }
    return out;
  };
  TaskSample sample;
  do {
    sample.context = text();
  } while (options.split != Split::kAny && storefront::split_of(sample.context) != options.split);
  sample.context += '\n';
  return sample;
}

}  // namespace coppice::families
