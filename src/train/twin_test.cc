#include "train/twin.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/file.h"

namespace coppice::train {
namespace {

const std::filesystem::path kGolden = COPPICE_TEST_DATA "/train/twin";

std::filesystem::path twin_scratch(const std::string& name) {
  const auto dir = std::filesystem::temp_directory_path() / ("coppice_twin_test_" + name);
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  return dir;
}

torch::Tensor logits_of(const Twin& twin, const std::vector<int64_t>& ids) {
  torch::NoGradGuard no_grad;
  const auto inputs = torch::tensor(ids, torch::kInt64).unsqueeze(0);
  return twin.logits(twin.hidden(inputs)).squeeze(0);
}

TEST(Twin, AnswersAsTransformersDoes) {
  const auto twin = Twin::load(kGolden);
  ASSERT_TRUE(twin) << twin.error().message;
  const auto ids = nlohmann::json::parse(*read_file((kGolden / "golden.json").string()))
                       .get<std::vector<int64_t>>();
  std::string bytes = *read_file((kGolden / "golden.f32").string());
  const auto golden = torch::from_blob(bytes.data(), {static_cast<int64_t>(ids.size()), 96});
  const auto range = (golden.max() - golden.min()).item<float>();
  EXPECT_GT(range, 1.0f);
  EXPECT_LE((logits_of(*twin, ids) - golden).abs().max().item<float>(), 1e-4f * range);
}

TEST(Twin, BatchedRowsAnswerAsAlone) {
  const auto twin = Twin::load(kGolden);
  ASSERT_TRUE(twin) << twin.error().message;
  torch::NoGradGuard no_grad;
  const auto tokens = torch::randint(0, 96, {3, 20}, torch::kInt64);
  const auto together = twin->logits(twin->hidden(tokens));
  for (int64_t b = 0; b < 3; ++b) {
    const auto alone = twin->logits(twin->hidden(tokens.slice(0, b, b + 1)))[0];
    EXPECT_TRUE(torch::allclose(together[b], alone, 1e-4, 1e-4));
  }
}

TEST(Twin, LaterTokensChangeNothingBefore) {
  const Twin twin(TwinConfig{}, 3);
  std::vector<int64_t> ids(40);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int64_t>(i * 37 % 1024);
  const auto before = logits_of(twin, ids);
  ids[30] = 5;
  const auto after = logits_of(twin, ids);
  EXPECT_TRUE(torch::equal(before.slice(0, 0, 30), after.slice(0, 0, 30)));
  EXPECT_FALSE(torch::allclose(before[30], after[30]));
}

// The sketch of init(): layer 0 looks back and layer 1 matches, so an untrained twin already
// prefers, after a key that it has seen, the token that followed; a little, which is all that is
// needed.
TEST(Twin, UntrainedTwinLeansToInduction) {
  const Twin twin(TwinConfig{}, 1);
  int better = 0, asked = 0;
  for (int64_t trial = 0; trial < 20; ++trial) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 32; ++i) ids.push_back(40 + (trial * 101 + i * i * 17 + i * 29) % 900);
    const int64_t followed = ids[12];
    // The same four tokens once more, with another token between key and value.
    ids.insert(ids.end(), {ids[8], ids[9], ids[10], ids[11], 7});
    const auto last = logits_of(twin, ids)[-1];
    const auto rank = last.gt(last[followed]).sum().item<int64_t>();
    better += rank < 100 ? 1 : 0;  // by chance one in ten
    ++asked;
  }
  EXPECT_GE(better, asked / 2);
}

TEST(Twin, SavesAndLoadsItself) {
  const auto dir = twin_scratch("save");
  TwinConfig config;
  config.vocab_size = 50;
  config.num_hidden_layers = 2;
  const Twin twin(config, 9);
  const std::vector<int64_t> ids = {1, 2, 3, 4, 5, 6, 7};
  ASSERT_TRUE(twin.save(dir, torch::kFloat32));
  const auto same = Twin::load(dir);
  ASSERT_TRUE(same) << same.error().message;
  for (size_t i = 0; i < twin.parameters().size(); ++i) {
    EXPECT_TRUE(torch::equal(same->parameters()[i].second, twin.parameters()[i].second));
  }
  // A loaded twin rounds its frequencies as the engine does.
  EXPECT_TRUE(torch::allclose(logits_of(*same, ids), logits_of(twin, ids), 1e-4, 1e-4));
  ASSERT_TRUE(twin.save(dir, torch::kBFloat16));
  const auto rounded = Twin::load(dir);
  ASSERT_TRUE(rounded) << rounded.error().message;
  for (size_t i = 0; i < twin.parameters().size(); ++i) {
    const auto& [name, tensor] = twin.parameters()[i];
    EXPECT_TRUE(torch::equal(rounded->parameters()[i].second,
                             tensor.to(torch::kBFloat16).to(torch::kFloat32)))
        << name;
  }
}

TEST(Twin, SeedDecidesTheWeights) {
  const Twin a(TwinConfig{}, 4), b(TwinConfig{}, 4), c(TwinConfig{}, 5);
  for (size_t i = 0; i < a.parameters().size(); ++i) {
    EXPECT_TRUE(torch::equal(a.parameters()[i].second, b.parameters()[i].second));
  }
  EXPECT_FALSE(torch::equal(a.parameters()[0].second, c.parameters()[0].second));
}

TEST(TwinConfig, NamesTheFieldItCannotUse) {
  const auto dir = twin_scratch("config");
  ASSERT_TRUE(TwinConfig{}.save(dir / "config.json", "float32"));
  const auto good = nlohmann::json::parse(*read_file((dir / "config.json").string()));
  const auto error_with = [&](const char* key, const nlohmann::json& value) {
    auto bad = good;
    bad[key] = value;
    std::ofstream(dir / "config.json") << bad;
    const auto config = TwinConfig::load(dir / "config.json");
    return config ? std::string() : config.error().message;
  };
  EXPECT_NE(error_with("hidden_size", 0).find("hidden_size"), std::string::npos);
  EXPECT_NE(error_with("vocab_size", "many").find("vocab_size"), std::string::npos);
  EXPECT_NE(error_with("num_hidden_layers", 1e300).find("num_hidden_layers"), std::string::npos);
  EXPECT_NE(error_with("num_key_value_heads", 3).find("heads"), std::string::npos);
  EXPECT_NE(error_with("rms_norm_eps", -1).find("rms_norm_eps"), std::string::npos);
  EXPECT_NE(error_with("tie_word_embeddings", "no").find("tie_word_embeddings"), std::string::npos);
  EXPECT_NE(error_with("hidden_act", "gelu").find("hidden_act"), std::string::npos);
  EXPECT_EQ(error_with("rope_theta", 5e5), "");
}

}  // namespace
}  // namespace coppice::train
