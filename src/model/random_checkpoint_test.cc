#include "model/random_checkpoint.h"

#include <cmath>
#include <cstring>

#include "model/test_files.h"

namespace coppice::model {
namespace {

TEST(RandomCheckpoint, IsTheSameEveryTimeAndHasUnitGain) {
  const auto a = *open_random("tiny"), b = *open_random("tiny"), other = *open_random("tiny", 2);
  const std::string name = "model.layers.1.mlp.down_proj.weight";
  const Shape shape = *a->shape(name);
  EXPECT_EQ(shape, (Shape{64, 128}));
  const auto x = *a->tensor(name, shape), y = *b->tensor(name, shape),
             z = *other->tensor(name, shape);
  EXPECT_EQ(std::memcmp(x.view.raw(), y.view.raw(), static_cast<size_t>(x.view.bytes())), 0);
  EXPECT_NE(std::memcmp(x.view.raw(), z.view.raw(), static_cast<size_t>(x.view.bytes())), 0);
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < x.view.elements(); ++i) {
    const double value = to_float(x.view.as_bf16()[i]);
    sum += value;
    squares += value * value;
  }
  const auto n = static_cast<double>(x.view.elements());
  EXPECT_NEAR(squares / n * 128, 1.0, 0.05);
  EXPECT_NEAR(sum / n, 0.0, 0.005);
}

TEST(RandomCheckpoint, ShapesByNameAndByNumbers) {
  const ModelConfig large = (*open_random("L1B"))->config();
  EXPECT_EQ(large.hidden_size, 2048);
  EXPECT_EQ(large.vocab_size, 128256);
  EXPECT_TRUE(large.tie_word_embeddings);
  EXPECT_EQ((*open_random("64,1,4,2,16,96,258"))->config().intermediate_size, 96);
  for (const char* bad : {"", "huge", "1,2,3", "64,1,4,2,16,96,257", "64,1,4,3,16,96,300",
                          "64,1,4,2,15,96,300", "64,1,4,2,16,96,300,1", "64,1,4,2,16,96,-300",
                          "64,0,4,2,16,96,300", "99999999999999999999,1,4,2,16,96,300"}) {
    EXPECT_FALSE(open_random(bad)) << bad;
  }
  EXPECT_TRUE(contains(message_of(open_random("huge")), "tiny, L1B or seven numbers"));
}

}  // namespace
}  // namespace coppice::model
