#include "samples.h"

#include <gtest/gtest.h>

namespace coppice::tools {
namespace {

TEST(Samples, QuantilesAreSamples) {
  Samples samples;
  for (const double x : {5.0, 1.0, 4.0, 2.0, 3.0}) samples.add(x);
  EXPECT_EQ(samples.median(), 3.0);
  EXPECT_EQ(samples.quantile(0.0), 1.0);
  EXPECT_EQ(samples.quantile(0.1), 1.0);
  EXPECT_EQ(samples.quantile(0.9), 5.0);
  nlohmann::ordered_json json;
  samples.put(json, "us");
  EXPECT_EQ(json.dump(), R"({"us":3.0,"us_p10":1.0,"us_p90":5.0})");
  nlohmann::ordered_json empty;
  Samples().put(empty, "us");
  EXPECT_EQ(empty.dump(), R"({"us":null,"us_p10":null,"us_p90":null})");
}

TEST(Samples, TheMedianOfTwoIsNeither) {
  Samples samples;
  for (const double x : {1.0, 2.0}) samples.add(x);
  EXPECT_EQ(samples.median(), 1.5);
  for (const double x : {8.0, 9.0}) samples.add(x);
  EXPECT_EQ(samples.median(), 5.0);
  nlohmann::ordered_json json;
  samples.put(json, "us");
  EXPECT_EQ(json["us"], 5.0);
}

TEST(Samples, EffortIsAtLeastItsRoundsAndEnds) {
  int rounds = 0;
  spend({.rounds = 3, .seconds = 0}, [&] { ++rounds; });
  EXPECT_EQ(rounds, 3);
  rounds = 0;
  spend({.rounds = 3, .seconds = 3600}, [&] { ++rounds; });
  EXPECT_EQ(rounds, 200);
  rounds = 0;
  spend({.rounds = 201, .seconds = 0}, [&] { ++rounds; });
  EXPECT_EQ(rounds, 201);
}

TEST(Samples, GeometricMean) {
  EXPECT_DOUBLE_EQ(geometric_mean({2, 8}), 4);
  EXPECT_EQ(geometric_mean({}), 0);
}

}  // namespace
}  // namespace coppice::tools
