#include "attention_presets.h"

#include <gtest/gtest.h>

#include <set>

namespace coppice::tools {
namespace {

TEST(AttentionPresets, EveryRowIsAShapeAndSaysWhereItIsFrom) {
  const std::pair<const char*, size_t> presets[] = {
      {"reference", 4}, {"paper-table3", 12}, {"trees", 35}, {"ragged", 4}};
  for (const auto& [name, rows] : presets) {
    const std::vector<PresetRow> preset = attention_preset(name);
    EXPECT_EQ(preset.size(), rows) << name;
    std::set<std::pair<std::string, std::string>> names;
    for (const PresetRow& row : preset) {
      EXPECT_TRUE(shape_of(row.spec)) << row.name;
      EXPECT_FALSE(row.origin.empty());
      EXPECT_TRUE(names.emplace(row.origin, row.name).second) << row.name << " stands there twice";
    }
  }
  EXPECT_TRUE(attention_preset("others").empty());
}

TEST(AttentionPresets, Table3HasThePapersShapes) {
  const std::vector<PresetRow> preset = attention_preset("paper-table3");
  const std::vector<PaperLatency> printed = paper_table3();
  ASSERT_EQ(printed.size(), preset.size());
  for (size_t i = 0; i < preset.size(); ++i) {
    const auto shape = shape_of(preset[i].spec);
    EXPECT_EQ(shape->sequences(), 32);
    EXPECT_EQ(shape->context(7), printed[i].prompt);
    EXPECT_EQ(shape->unique_tokens(),
              printed[i].shared + 32 * (printed[i].prompt - printed[i].shared));
  }
}

TEST(AttentionPresets, TreesCountTheirTokensOnce) {
  const auto shape = shape_of({.kv_heads = 8, .tree = "1,4,16,512/1024,256,128,32"});
  ASSERT_TRUE(shape);
  EXPECT_EQ(shape->sequences(), 512);
  EXPECT_EQ(shape->node_count(), 1 + 4 + 16 + 512);
  EXPECT_EQ(shape->context(0), 1024 + 256 + 128 + 32);
  EXPECT_EQ(shape->all_tokens(), 512 * shape->context(0));
  EXPECT_EQ(shape->unique_tokens(), 1024 + 4 * 256 + 16 * 128 + 512 * 32);
}

TEST(AttentionPresets, RaggedSequencesFollowZipfsLaw) {
  for (const PresetRow& row : attention_preset("ragged")) {
    const auto shape = shape_of(row.spec);
    ASSERT_TRUE(shape);
    EXPECT_EQ(shape->sequences(), 64);
    std::vector<int> of(shape->prefixes.size());
    int32_t last = 0;
    for (const auto& sequence : shape->ragged) {
      EXPECT_GE(sequence.prefix, last);  // a prefix's sequences stand together
      last = sequence.prefix;
      ++of[static_cast<size_t>(sequence.prefix)];
    }
    for (size_t i = 0; i < of.size(); ++i) {
      EXPECT_NEAR(of[i] * static_cast<double>(i + 1), of[0], static_cast<double>(i + 2)) << i;
    }
    EXPECT_EQ(shape->context(0), shape->prefixes[0] + shape->ragged[0].own);
    EXPECT_LT(shape->unique_tokens(), shape->all_tokens());
  }
}

}  // namespace
}  // namespace coppice::tools
