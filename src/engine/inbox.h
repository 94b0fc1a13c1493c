// What:    the bounded way into the engine's thread: requests, cancels, administrative commands.
// Owns:    commands not yet taken.
// Threads: any may push; one takes.
// Fails:   push: false when full; urge never, it waits until the engine took what is there.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace coppice::engine {

template <class Command>
class Inbox {
 public:
  explicit Inbox(size_t capacity) : capacity_(capacity) {}

  bool push(Command command) {
    {
      const std::lock_guard lock(mutex_);
      if (commands_.size() >= capacity_) return false;
      commands_.push_back(std::move(command));
    }
    arrived_.notify_one();
    return true;
  }

  // For what must not be refused (cancels, administration): may fill a second capacity.
  void urge(Command command) {
    {
      std::unique_lock lock(mutex_);
      taken_.wait(lock, [&] { return commands_.size() < 2 * capacity_; });
      commands_.push_back(std::move(command));
    }
    arrived_.notify_one();
  }

  // Moves all commands to `out` (emptied first), waiting up to `patience` for one.
  template <class Duration>
  void take(std::vector<Command>& out, Duration patience) {
    out.clear();
    {
      std::unique_lock lock(mutex_);
      arrived_.wait_for(lock, patience, [&] { return !commands_.empty(); });
      std::swap(out, commands_);
    }
    taken_.notify_all();
  }

 private:
  const size_t capacity_;
  std::mutex mutex_;
  std::condition_variable arrived_, taken_;
  std::vector<Command> commands_;
};

}  // namespace coppice::engine
