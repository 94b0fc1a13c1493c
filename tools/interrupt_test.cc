#include "interrupt.h"

#include <gtest/gtest.h>

#include "samples.h"

namespace coppice::tools {
namespace {

using Handler = void (*)(int);

Handler handler_of(int number) {
  struct sigaction now {};
  ::sigaction(number, nullptr, &now);
  return now.sa_handler;
}

// Whatever started the tests may ignore some.
class InterruptTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const int number : Interrupt::kSignals) ::signal(number, SIG_DFL);
  }
};

TEST_F(InterruptTest, IsAskedForAndLeavesTheHandlersAsTheyWere) {
  for (const int number : Interrupt::kSignals) {
    EXPECT_FALSE(Interrupt::came());
    {
      const Interrupt interrupt;
      EXPECT_FALSE(Interrupt::came());
      ::raise(number);
      EXPECT_TRUE(Interrupt::came());
    }
    EXPECT_FALSE(Interrupt::came());
    for (const int other : Interrupt::kSignals) EXPECT_EQ(handler_of(other), SIG_DFL);
  }
}

TEST_F(InterruptTest, TheSecondEndsTheProcess) {
  for (const int second : {SIGINT, SIGTERM}) {
    EXPECT_EXIT(
        {
          const Interrupt interrupt;
          ::raise(SIGINT);
          ::raise(second);
        },
        ::testing::KilledBySignal(second), "");
  }
}

// The kernel sends it and so does the shell.
TEST_F(InterruptTest, ATerminalMayCloseTwice) {
  const Interrupt interrupt;
  ::raise(SIGHUP);
  ::raise(SIGHUP);
  EXPECT_TRUE(Interrupt::came());
}

TEST_F(InterruptTest, WhatWasIgnoredStaysIgnored) {
  for (const int number : Interrupt::kSignals) {
    ::signal(number, SIG_IGN);
    {
      const Interrupt interrupt;
      ::raise(number);
      EXPECT_FALSE(Interrupt::came());
      ::raise(number == SIGTERM ? SIGINT : SIGTERM);
      EXPECT_TRUE(Interrupt::came());
      EXPECT_EQ(handler_of(number), SIG_IGN);
    }
    EXPECT_EQ(handler_of(number), SIG_IGN);
    ::signal(number, SIG_DFL);
  }
}

TEST_F(InterruptTest, EndsAMeasurementAfterItsRound) {
  const Interrupt interrupt;
  int rounds = 0;
  spend({.rounds = 100, .seconds = 0}, [&] {
    if (++rounds == 3) ::raise(SIGINT);
  });
  EXPECT_EQ(rounds, 3);
  spend({.rounds = 100, .seconds = 0}, [&] { ++rounds; });
  EXPECT_EQ(rounds, 4) << "a measurement has a sample at least";
}

}  // namespace
}  // namespace coppice::tools
