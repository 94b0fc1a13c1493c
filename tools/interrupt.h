// What:    Ctrl-C, SIGTERM and a closed terminal as a question that a running command asks, so that
//          it ends in order.
// Owns:    the handlers of these signals while it lives; one at a time.
// Threads: any may ask.
// Fails:   never. The second signal ends the process as if there were no handler.
#pragma once

namespace coppice::tools {

class Interrupt {
 public:
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // False too where there is none.
  static bool came();
};

}  // namespace coppice::tools
