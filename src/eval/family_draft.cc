#include "eval/family_draft.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "base/check.h"

namespace coppice::families {
namespace {

constexpr int kFillerWords = 6;  // with "The" and a mark as long as a fact
constexpr std::array<std::string_view, 8> kCommonWords = {"costs", "is",    "at",   "needs",
                                                          "form",  "opens", "euro", "h"};

void append(std::vector<std::string_view>& to, std::span<const std::string_view> from) {
  to.insert(to.end(), from.begin(), from.end());
}

std::string number(Random& random) { return std::to_string(10 + random.below(90)); }

std::string_view verb(Attribute attribute) {
  switch (attribute) {
    case Attribute::kPrice:
      return " costs";
    case Attribute::kPlace:
      return " is at";
    case Attribute::kRule:
      return " needs form";
    case Attribute::kHours:
      break;  // speaks of rooms
  }
  CHECK(false);
}

template <typename List>
auto& pick(Random& random, List& from) {
  return from[random.below(static_cast<uint32_t>(from.size()))];
}

}  // namespace

int Draft::add(std::string sentence) {
  tokens_ += count_tokens(sentence);
  sentences_.push_back(std::move(sentence));
  return static_cast<int>(sentences_.size()) - 1;
}

TaskSample Draft::finish(Random& random, std::vector<OpenAsk> asks) const {
  std::vector<size_t> order(sentences_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
  }
  TaskSample sample;
  sample.context = head_;
  std::vector<std::pair<int, int>> spans(sentences_.size());
  for (const size_t i : order) {
    if (!sample.context.empty() && sample.context.back() != '\n') sample.context += ' ';
    const int begin = static_cast<int>(sample.context.size());
    sample.context += sentences_[i];
    spans[i] = {begin, static_cast<int>(sample.context.size())};
  }
  sample.context += '\n';
  for (OpenAsk& ask : asks) {
    Ask& out = sample.asks.emplace_back();
    out.question = std::move(ask.question);
    out.answer = std::move(ask.answer);
    out.hops = ask.hops;
    for (const int i : ask.rests_on) out.evidence.push_back(spans[static_cast<size_t>(i)]);
  }
  return sample;
}

Words::Words(Random& random, Haystack haystack, Split split)
    : random_(&random), haystack_(haystack), split_(split) {
  const auto lists = storefront::word_lists();
  append(rooms_, lists.rooms);
  const auto take = [&](std::span<const std::string_view> list, auto& to) {
    // h0 keeps the last quarter of every list for the filler.
    const size_t kept = haystack == Haystack::kH0 ? list.size() * 3 / 4 : list.size();
    append(to, list.first(kept));
    append(filler_, haystack == Haystack::kH0 ? list.subspan(kept) : list);
  };
  take(lists.adjectives, adjectives_);
  take(lists.products, products_);
  take(lists.names, names_);
  if (haystack != Haystack::kH0) append(filler_, kCommonWords);
  if (haystack == Haystack::kH2) topic_ = pick(random, adjectives_);
}

std::string Words::head() const {
  return topic_.empty() ? "" : "The key is " + std::string(topic_) + "!\n";
}

std::string Words::word() {
  const uint32_t roll = random_->below(4);
  if (roll == 0) return std::string(pick(*random_, adjectives_));
  if (roll == 1) return std::string(pick(*random_, products_));
  if (roll == 2) return std::string(pick(*random_, names_));
  return number(*random_);
}

std::string Words::named(const std::vector<std::string_view>& what, bool of_topic) {
  for (;;) {
    std::string_view adjective = topic_;
    if (topic_.empty()) adjective = pick(*random_, adjectives_);
    while (!of_topic && adjective == topic_) adjective = pick(*random_, adjectives_);
    std::string subject(adjective);
    subject += ' ';
    subject += pick(*random_, what);
    if (subjects_.insert(subject).second) return subject;
  }
}

std::string Words::key(const std::string& subject, Attribute attribute) const {
  return subject + std::string(verb(attribute));
}

std::string Words::value(const std::string& key, Attribute attribute) {
  for (;;) {
    const std::string value = attribute == Attribute::kPrice
                                  ? number(*random_) + " euro " + number(*random_)
                                  : std::string(pick(*random_, names_)) + " " + number(*random_);
    if (split_ == Split::kAny || Fact{attribute, key, value}.split() == split_) return value;
  }
}

std::string Words::filler() {
  std::string out = "The";
  for (int i = 0; i < kFillerWords; ++i) {
    out += ' ';
    // Numbers belong to the facts' words, so that h0 has none.
    const bool digits = haystack_ != Haystack::kH0 && random_->below(5) == 0;
    out += digits ? number(*random_) : std::string(pick(*random_, filler_));
  }
  return out + ";";
}

}  // namespace coppice::families
