// What:    Ctrl-C and SIGTERM as a question that a running command asks, so that it ends in order.
// Owns:    the handlers of both signals while it lives; one at a time.
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

  bool came() const;
};

}  // namespace coppice::tools
