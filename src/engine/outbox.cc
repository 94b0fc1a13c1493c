#include <chrono>
#include <utility>

#include "coppice/engine.h"

namespace coppice {

std::optional<Outbox::Event> Outbox::next(int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return !events_.empty(); };
  if (!arrived_.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

Verdict Outbox::on_token(const TokenEvent& event) {
  Event out;
  out.choice = event.choice;
  out.text = event.text;
  out.token = event.token;
  if (event.logprob != nullptr) out.logprob = *event.logprob;
  {
    const std::lock_guard lock(mutex_);
    if (events_.size() >= capacity_) {
      refused_[out.choice] += out.text;
      return Verdict::kCancel;
    }
    events_.push_back(std::move(out));
  }
  arrived_.notify_one();
  return Verdict::kContinue;
}

// Always room for the end: one per choice.
void Outbox::on_finish(const Result& result, std::string_view rest) {
  Event out;
  out.choice = result.choice;
  out.result = result;
  {
    const std::lock_guard lock(mutex_);
    out.text = refused_[out.choice];
    out.text += rest;
    events_.push_back(std::move(out));
  }
  arrived_.notify_one();
}

}  // namespace coppice
