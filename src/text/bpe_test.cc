#include "text/bpe.h"

#include <algorithm>
#include <string>
#include <utility>

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

namespace coppice::text {
namespace {

struct Model {
  std::vector<std::string> spellings{"a", "b", "c", "\u00e9"};
  std::vector<Bpe::Merge> merges;
};

// Random merges; no two with one result, which is where rank and result order could part.
Model random_model(const std::vector<std::pair<uint8_t, uint8_t>>& picks) {
  Model model;
  for (const auto& [left_pick, right_pick] : picks) {
    const TokenId left = left_pick % model.spellings.size();
    const TokenId right = right_pick % model.spellings.size();
    const std::string joined = model.spellings[left] + model.spellings[right];
    if (joined.size() > 40) continue;
    if (std::find(model.spellings.begin(), model.spellings.end(), joined) != model.spellings.end())
      continue;
    model.merges.push_back({left, right, static_cast<TokenId>(model.spellings.size())});
    model.spellings.push_back(joined);
  }
  return model;
}

// The definition: as long as any merge applies, the first in rank is made where it is leftmost.
std::vector<TokenId> by_definition(const Model& model, std::vector<TokenId> ids) {
  while (true) {
    size_t best_rank = model.merges.size(), best_at = 0;
    for (size_t at = 0; at + 1 < ids.size(); ++at) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        const Bpe::Merge& merge = model.merges[rank];
        if (merge.left != ids[at] || merge.right != ids[at + 1]) continue;
        best_rank = rank;
        best_at = at;
      }
    }
    if (best_rank == model.merges.size()) return ids;
    ids[best_at] = model.merges[best_rank].result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(best_at) + 1);
  }
}

std::vector<TokenId> encode(const Bpe& bpe, const std::string& word) {
  Bpe::Scratch scratch;
  std::vector<TokenId> out;
  bpe.encode(word, &scratch, &out);
  return out;
}

RC_GTEST_PROP(Bpe, MergesByTheDefinition,
              (const std::vector<std::pair<uint8_t, uint8_t>>& picks,
               const std::vector<uint8_t>& letters)) {
  const Model model = random_model(picks);
  std::string word;
  std::vector<TokenId> ids;
  for (const uint8_t letter : letters) {
    ids.push_back(letter % 4);
    word += model.spellings[letter % 4];
  }
  const Bpe bpe(Vocab(model.spellings), model.merges, {});
  RC_ASSERT(encode(bpe, word) == by_definition(model, ids));
}

TEST(Bpe, OptionsDecideOverWholeWordsAndUnknowns) {
  const std::vector<std::string> spellings{"<unk>", "a", "b", "ab", "aba"};
  const std::vector<Bpe::Merge> merges{{1, 2, 3}};
  const auto with = [&](Bpe::Options options) { return Bpe(Vocab(spellings), merges, options); };
  EXPECT_EQ(encode(with({}), "aba"), (std::vector<TokenId>{3, 1}));
  EXPECT_EQ(encode(with({.unknown = {}, .ignore_merges = true}), "aba"), (std::vector<TokenId>{4}));
  EXPECT_EQ(encode(with({}), "axyb"), (std::vector<TokenId>{3}));
  EXPECT_EQ(encode(with({.unknown = 0}), "axyb"), (std::vector<TokenId>{1, 0, 0, 2}));
  EXPECT_EQ(encode(with({.unknown = 0, .fuse_unknown = true}), "xyazz"),
            (std::vector<TokenId>{0, 1, 0}));
  EXPECT_EQ(encode(with({}), ""), std::vector<TokenId>());
}

// Quadratic work would take long past the time-out.
TEST(Bpe, AVeryLongWordIsNoTrouble) {
  Model model;
  for (std::string spelling = "aa"; spelling.size() <= 64; spelling += spelling) {
    const TokenId half = model.merges.empty() ? 0 : model.merges.back().result;
    model.merges.push_back({half, half, static_cast<TokenId>(model.spellings.size())});
    model.spellings.push_back(spelling);
  }
  const Bpe bpe(Vocab(model.spellings), model.merges, {});
  constexpr size_t kLength = size_t{1} << 19;
  EXPECT_EQ(encode(bpe, std::string(kLength, 'a')),
            std::vector<TokenId>(kLength / 64, model.merges.back().result));
}

TEST(PairMap, KeepsTheLaterOfTwo) {
  PairMap map(2);
  EXPECT_EQ(map.find(0, 0), nullptr);
  map.set(1, 2, {0, 3});
  map.set(1, 2, {7, 4});
  ASSERT_NE(map.find(1, 2), nullptr);
  EXPECT_EQ(map.find(1, 2)->rank, 7u);
  EXPECT_EQ(map.find(2, 1), nullptr);
}

}  // namespace
}  // namespace coppice::text
