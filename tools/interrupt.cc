#include "interrupt.h"

#include <atomic>

namespace coppice::tools {
namespace {

std::atomic<bool> signalled = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler takes no lock");

extern "C" void take_note(int);

bool is_handled(int number) {
  struct sigaction now {};
  return ::sigaction(number, nullptr, &now) == 0 && now.sa_handler == take_note;
}

// A terminal that closes sends its signal more than once, and nobody is impatient there.
extern "C" void take_note(int) {
  signalled = true;
  for (const int number : Interrupt::kSignals) {
    if (is_handled(number)) ::signal(number, number == SIGHUP ? SIG_IGN : SIG_DFL);
  }
}

}  // namespace

Interrupt::Interrupt() {
  signalled = false;
  struct sigaction action {};
  action.sa_handler = take_note;
  action.sa_flags = SA_RESTART;  // what is being written is written to its end
  for (size_t i = 0; i < kSignals.size(); ++i) {
    // Whoever started this in the background may have it ignore Ctrl-C.
    if (::sigaction(kSignals[i], nullptr, &before_[i]) == 0 && before_[i].sa_handler != SIG_IGN) {
      ::sigaction(kSignals[i], &action, nullptr);
    }
  }
}

Interrupt::~Interrupt() {
  for (size_t i = 0; i < kSignals.size(); ++i) ::sigaction(kSignals[i], &before_[i], nullptr);
  signalled = false;
}

bool Interrupt::came() { return signalled; }

Status Interrupt::check() {
  if (came()) return fail(ErrorCode::kCancelled, "interrupted");
  return {};
}

}  // namespace coppice::tools
