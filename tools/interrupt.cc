#include "interrupt.h"

#include <signal.h>

#include <atomic>

namespace coppice::tools {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM, SIGHUP};

std::atomic<bool> signalled = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler takes no lock");

extern "C" void take_note(int) {
  signalled = true;
  for (const int number : kSignals) ::signal(number, SIG_DFL);
}

}  // namespace

Interrupt::Interrupt() {
  signalled = false;
  struct sigaction action {};
  action.sa_handler = take_note;
  action.sa_flags = SA_RESTART;  // what is being written is written to its end
  for (const int number : kSignals) {
    struct sigaction before {};
    // Whoever started this in the background may have it ignore Ctrl-C.
    if (::sigaction(number, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) {
      ::sigaction(number, &action, nullptr);
    }
  }
}

Interrupt::~Interrupt() {
  for (const int number : kSignals) {
    struct sigaction now {};
    if (::sigaction(number, nullptr, &now) == 0 && now.sa_handler == take_note) {
      ::signal(number, SIG_DFL);
    }
  }
  signalled = false;
}

bool Interrupt::came() { return signalled; }

}  // namespace coppice::tools
