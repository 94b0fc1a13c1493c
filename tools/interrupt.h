// What:    Ctrl-C, SIGTERM and a closed terminal as a question that a running command asks, so that
//          it ends in order.
// Owns:    the handlers of these signals while it lives; one at a time.
// Threads: any may ask.
// Fails:   never. The second Ctrl-C or SIGTERM ends the process as if there were no handler.
#pragma once

#include <csignal>

#include <array>

#include "coppice/error.h"

namespace coppice::tools {

class Interrupt {
 public:
  static constexpr std::array kSignals{SIGINT, SIGTERM, SIGHUP};

  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // False too where there is none.
  static bool came();
  // kCancelled once it came: what a command ends with that has nothing to show yet.
  static Status check();

 private:
  std::array<struct sigaction, kSignals.size()> before_{};
};

}  // namespace coppice::tools
