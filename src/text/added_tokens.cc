#include "text/added_tokens.h"

#include <algorithm>
#include <unordered_set>

#include "text/unicode.h"
#include "text/utf8.h"

namespace coppice::text {
namespace {

Expected<AddedToken> load_token(const JsonAt& config, const Normalizer& normalizer) {
  AddedToken token;
  TRY(const JsonAt id, config.at("id"));
  TRY(token.id, id.id());
  TRY(token.content, config.string("content"));
  if (token.content.empty()) return config.corrupt("has an empty content");
  TRY(token.special, config.boolean("special"));
  TRY(token.normalized, config.boolean("normalized"));
  TRY(token.lstrip, config.boolean("lstrip"));
  TRY(token.rstrip, config.boolean("rstrip"));
  TRY(token.single_word, config.boolean("single_word"));
  token.searched = token.normalized ? normalizer.apply(token.content) : token.content;
  return token;
}

bool ends_in_word(std::string_view text) {
  return !text.empty() && is_word_char(decode_utf8_last(text).code_point);
}

bool begins_with_word(std::string_view text) {
  return !text.empty() && is_word_char(decode_utf8(text).code_point);
}

}  // namespace

void SpellingTree::add(std::string_view spelling, int32_t value) {
  int32_t node = -1;
  for (const char c : spelling) {
    const uint8_t byte = static_cast<uint8_t>(c);
    int32_t next = node < 0 ? first_[byte] : child(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(values_.size());
      values_.push_back(-1);
      if (node < 0) {
        first_[byte] = next;
      } else {
        children_.emplace(static_cast<uint64_t>(node) * 256 + byte, next);
      }
    }
    node = next;
  }
  values_[node] = value;
}

bool SpellingTree::has(std::string_view spelling) const {
  size_t length = 0;
  return longest(spelling, &length) >= 0 && length == spelling.size();
}

int32_t SpellingTree::longest(std::string_view text, size_t* length) const {
  int32_t best = -1;
  int32_t node = -1;
  for (size_t at = 0; at < text.size(); ++at) {
    const uint8_t byte = static_cast<uint8_t>(text[at]);
    node = at == 0 ? first_[byte] : child(node, byte);
    if (node < 0) break;
    if (values_[node] < 0) continue;
    best = values_[node];
    *length = at + 1;
  }
  return best;
}

int32_t SpellingTree::child(int32_t node, uint8_t byte) const {
  const auto found = children_.find(static_cast<uint64_t>(node) * 256 + byte);
  return found == children_.end() ? -1 : found->second;
}

Expected<AddedTokens> AddedTokens::load(const JsonAt& config, const Vocab& vocab,
                                        const Normalizer& normalizer) {
  AddedTokens added;
  if (config.is_null()) return added;
  TRY_STATUS(config.array());
  TokenId next = vocab.size();
  std::unordered_set<std::string> seen;
  for (size_t i = 0; i < config.value().size(); ++i) {
    const JsonAt at = config.item(i);
    TRY(AddedToken token, load_token(at, normalizer));
    if (!seen.insert(token.content).second) {
      return at.corrupt("repeats the content " + in_quotes(token.content));
    }
    const auto known = vocab.find(token.content);
    const TokenId expected = known ? *known : next++;
    if (token.id != expected) {
      return at.get("id").corrupt(
          "is " + std::to_string(token.id) + " but must be " + std::to_string(expected) +
          (known ? ", its id in model.vocab" : ": ids go on without holes"));
    }
    TRY_STATUS(added.add(std::move(token), at));
  }
  return added;
}

Status AddedTokens::add(AddedToken token, const JsonAt& at) {
  SpellingTree& tree = token.normalized ? in_normalized_ : in_text_;
  if (token.searched.empty() || tree.has(token.searched)) {
    return at.corrupt("is looked for as " + in_quotes(token.searched) + ", as is another token");
  }
  tree.add(token.searched, static_cast<int32_t>(tokens_.size()));
  tokens_.push_back(std::move(token));
  return {};
}

void AddedTokens::split(In where, std::string_view text, std::vector<Part>* parts) const {
  const SpellingTree& tree = where == In::kText ? in_text_ : in_normalized_;
  parts->clear();
  size_t done = 0;  // everything before it is in a part
  for (size_t at = 0; at < text.size();) {
    size_t length = 0;
    int32_t found = -1;
    if (tree.begins(static_cast<uint8_t>(text[at]))) found = tree.longest(text.substr(at), &length);
    if (found < 0) {
      ++at;
      continue;
    }
    add_match(tokens_[found], text, at, at + length, &done, parts);
    at += length;
  }
  if (done != text.size()) parts->push_back({text.substr(done), -1});
}

// The order of the steps, and that a token's white space may reach into the next match, are the
// reference's.
void AddedTokens::add_match(const AddedToken& token, std::string_view text, size_t begin,
                            size_t end, size_t* done, std::vector<Part>* parts) const {
  if (token.single_word &&
      (ends_in_word(text.substr(0, begin)) || begins_with_word(text.substr(end)))) {
    return;
  }
  if (token.lstrip) {
    while (begin > *done) {
      const Utf8Char c = decode_utf8_last(text.substr(0, begin));
      if (!is_white_space(c.code_point)) break;
      begin -= c.length;
    }
    begin = std::max(begin, *done);
  }
  if (token.rstrip) {
    while (end < text.size()) {
      const Utf8Char c = decode_utf8(text.substr(end));
      if (!is_white_space(c.code_point)) break;
      end += c.length;
    }
  }
  if (*done < begin) parts->push_back({text.substr(*done, begin - *done), -1});
  parts->push_back({text.substr(begin, end - begin), token.id});
  *done = end;
}

}  // namespace coppice::text
