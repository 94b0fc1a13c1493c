// What:    a context in the making: sentences and their filler, shuffled together when done.
// Owns:    its sentences; the words drawn for one task.
// Threads: distinct objects from distinct threads.
// Fails:   never, within the bounds make_task checks.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "eval/families.h"

namespace coppice::families {

using storefront::Attribute;
using storefront::Fact;
using storefront::Random;

// A question and the numbers of the sentences that answer it.
struct OpenAsk {
  std::string question, answer;
  std::vector<int> rests_on;
  int hops = 0;
};

class Draft {
 public:
  Draft(int target, std::string head) : target_(target), head_(std::move(head)) {
    tokens_ = count_tokens(head_) + 1;  // the newline at the end
  }

  // The sentence's number.
  int add(std::string sentence);
  // Tokens that still fit.
  int room() const { return target_ - tokens_; }
  // Shuffles, joins and finds the evidence.
  TaskSample finish(Random& random, std::vector<OpenAsk> asks) const;

 private:
  int target_;
  int tokens_;
  std::string head_;  // whole lines that stay first
  std::vector<std::string> sentences_;
};

// The words of one task. At h0 facts and filler use disjoint words; at h2 the facts that may be
// asked have one adjective, the topic, and the others have not.
class Words {
 public:
  Words(Random& random, Haystack haystack, Split split);

  Haystack haystack() const { return haystack_; }
  // "The key is oak!\n" at h2, else nothing.
  std::string head() const;

  // Any word of the facts: adjective, product, name or number.
  std::string word();
  // A subject not drawn before: "oak lamp". Not the topic's: what only fills at h2.
  std::string subject(bool of_topic = true) { return named(products_, of_topic); }
  // Likewise a room: "big hall".
  std::string room(bool of_topic = true) { return named(rooms_, of_topic); }
  void release(const std::string& subject) { subjects_.erase(subject); }
  // " 48 euro 15" and the like without the space, such that the fact lies in the split.
  std::string value(const std::string& key, Attribute attribute);
  std::string key(const std::string& subject, Attribute attribute) const;
  // Redraws until the sentence lies in the split.
  template <typename Make>
  std::string in_split(Make make) {
    for (;;) {
      std::string sentence = make();
      if (split_ == Split::kAny || storefront::split_of(sentence) == split_) return sentence;
    }
  }
  // A sentence of another form, for h0 and h1: "The jug Hale 48 tin is lamp;"
  std::string filler();
  std::string_view topic() const { return topic_; }
  Random& random() { return *random_; }

 private:
  std::string named(const std::vector<std::string_view>& what, bool of_topic);

  Random* random_;
  Haystack haystack_;
  Split split_;
  std::vector<std::string_view> adjectives_, products_, names_, filler_, rooms_;
  std::string_view topic_;
  std::set<std::string> subjects_;
};

// Fills the rest with the haystack: filler sentences, or at h2 what like_a_fact() makes.
template <typename LikeAFact>
void fill(Draft& draft, Words& words, LikeAFact like_a_fact) {
  if (words.haystack() == Haystack::kH3) return;
  for (;;) {
    const std::string sentence = words.haystack() == Haystack::kH2 ? like_a_fact() : words.filler();
    if (sentence.empty() || count_tokens(sentence) > draft.room()) return;
    draft.add(sentence);
  }
}

// Writers: what fills the draft and is asked of it.
using Asks = std::vector<OpenAsk>;
Asks write_needle(Draft& draft, Words& words, const TaskOptions& options);
Asks write_multi_key(Draft& draft, Words& words, const TaskOptions& options);
Asks write_multi_value(Draft& draft, Words& words, const TaskOptions& options);
Asks write_multi_query(Draft& draft, Words& words, const TaskOptions& options);
Asks write_uuid(Draft& draft, Words& words, const TaskOptions& options);
Asks write_variables(Draft& draft, Words& words, const TaskOptions& options);
Asks write_lookup(Draft& draft, Words& words, const TaskOptions& options);
Asks write_counting(Draft& draft, Words& words, const TaskOptions& options);
Asks write_copy(Draft& draft, Words& words, const TaskOptions& options);
// Whole samples of their own.
TaskSample make_conditioned(Random& random, const TaskOptions& options);
TaskSample make_system_prompt(Random& random, const TaskOptions& options);
TaskSample make_markov(Random& random, const TaskOptions& options);

}  // namespace coppice::families
