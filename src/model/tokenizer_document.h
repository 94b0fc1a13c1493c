// What:    tokenizer.json of a byte-level BPE, for checkpoints that bring no such file.
// Owns:    nothing.
// Threads: any.
// Fails:   never.
#pragma once

#include <cstdint>
#include <string_view>

#include <nlohmann/json.hpp>

namespace coppice::model {

struct BytePairTokenizer {
  nlohmann::json vocab;   // spelling in GPT-2's byte alphabet -> id
  nlohmann::json merges;  // [["left", "right"], ...] by rank
  nlohmann::json added_tokens;
  nlohmann::json normalizer;  // null: none
  nlohmann::json pre_tokenizer;
  nlohmann::json post_processor;  // null: none
  bool whole_words = false;       // "ignore_merges": a word that is a token is not merged
};

// The ByteLevel pre-tokenizer: on its own it splits as GPT-2 does, without it only spells bytes.
nlohmann::json byte_level(bool splits);
nlohmann::json added_token(int64_t id, std::string_view content, bool special);
nlohmann::json tokenizer_document(BytePairTokenizer parts);

}  // namespace coppice::model
