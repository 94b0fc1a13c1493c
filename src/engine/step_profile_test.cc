#include "engine/step_profile.h"

#include <gtest/gtest.h>

#include "coppice/engine.h"

namespace coppice {
namespace {

EngineOptions tiny(bool profile) {
  EngineOptions options;
  options.model = "random:tiny";  // 2 layers, hidden 64, heads 4/2, FFN 128, vocabulary 300
  options.threads = 1;
  options.kv_budget = 4 << 20;
  options.profile = profile;
  return options;
}

void generate(Engine& engine, size_t prompt, int32_t tokens) {
  Request request;
  request.prompt = std::vector<TokenId>(prompt, 5);
  request.sampling.max_tokens = tokens;
  request.sampling.ignore_eos = true;
  ASSERT_TRUE(engine.submit(std::move(request), nullptr));
  engine.run();
}

const ProfileEntry* find(const Profile& profile, const std::string& name) {
  for (const ProfileEntry& entry : profile.entries) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

TEST(StepProfile, TheEntriesAddUpToTheSteps) {
  auto engine = Engine::open(tiny(true));
  ASSERT_TRUE(engine) << engine.error().message;
  generate(**engine, 10, 4);
  const Profile profile = (*engine)->profile();
  EXPECT_EQ(profile.steps, 4);
  EXPECT_EQ(profile.rows, 10 + 3);
  double sum = 0;
  for (size_t i = 0; i < profile.entries.size(); ++i) {
    sum += profile.entries[i].seconds;
    EXPECT_LE(profile.entries[i].seconds, profile.entries[i > 0 ? i - 1 : 0].seconds);
  }
  EXPECT_GT(profile.seconds, 0.0);
  EXPECT_NEAR(sum, profile.seconds, 1e-9);
}

TEST(StepProfile, ProductsHaveTheirRolesAndOperationsTheirCounts) {
  auto engine = Engine::open(tiny(true));
  ASSERT_TRUE(engine);
  generate(**engine, 10, 4);
  const Profile profile = (*engine)->profile();
  const ProfileEntry* logits = find(profile, "product logits [300, 64] bf16");
  ASSERT_NE(logits, nullptr);
  EXPECT_EQ(logits->calls, 4);
  EXPECT_EQ(logits->flops, 4 * 2.0 * 300 * 64);
  EXPECT_EQ(logits->ceiling, "bf16");
  const ProfileEntry* attention = find(profile, "attention");
  ASSERT_NE(attention, nullptr);
  EXPECT_EQ(attention->calls, 2 * 4);
  // Rows 1 to 13 see as many slots; 4 query heads, 2 layers.
  EXPECT_EQ(attention->exps, 2 * 4 * (13.0 * 14 / 2));
  for (const char* name : {"plan", "sampling", "rest"}) {
    ASSERT_NE(find(profile, name), nullptr) << name;
    EXPECT_EQ(find(profile, name)->calls, 4);
  }
}

TEST(StepProfile, ResetForgetsAndOffCountsNothing) {
  auto engine = Engine::open(tiny(true));
  ASSERT_TRUE(engine);
  generate(**engine, 10, 4);
  (*engine)->reset_profile();
  EXPECT_EQ((*engine)->profile().steps, 0);
  EXPECT_EQ((*engine)->profile().seconds, 0.0);
  generate(**engine, 3, 1);
  EXPECT_EQ((*engine)->profile().steps, 1);

  auto plain = Engine::open(tiny(false));
  ASSERT_TRUE(plain);
  generate(**plain, 10, 4);
  (*plain)->reset_profile();
  EXPECT_EQ((*plain)->profile().steps, 0);
  EXPECT_TRUE((*plain)->profile().entries.empty());
}

}  // namespace
}  // namespace coppice
