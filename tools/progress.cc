#include "progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <utility>

namespace coppice::tools {

std::string progress_bar(int64_t done, int64_t total, int width) {
  const double share = total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 0.0;
  const int full = static_cast<int>(std::clamp(share, 0.0, 1.0) * width);
  std::string bar = "[";
  bar.append(static_cast<size_t>(full), '#');
  bar.append(static_cast<size_t>(width - full), '-');
  bar += ']';
  return bar;
}

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), terminal_(::isatty(STDERR_FILENO) == 1) {}

void ProgressLine::show(int64_t done, int64_t total, const std::string& note) {
  if (!terminal_) return;
  const auto now = std::chrono::steady_clock::now();
  if (drawn_ && done < total && now - last_ < std::chrono::milliseconds(100)) return;
  last_ = now;
  drawn_ = true;
  // Erased to its end, as a shorter line may follow a longer one.
  std::fprintf(stderr, "\r%s %s %s\033[K", what_.c_str(), progress_bar(done, total, 24).c_str(),
               note.c_str());
  std::fflush(stderr);
}

void ProgressLine::clear() {
  if (!drawn_) return;
  std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace coppice::tools
