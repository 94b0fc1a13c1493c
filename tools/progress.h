// What:    a line on standard error that says how far something is; silent unless it is a terminal.
// Owns:    whether its line is on the screen.
// Threads: one.
// Fails:   never.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace coppice::tools {

class ProgressLine {
 public:
  explicit ProgressLine(std::string what);
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  // Redrawn at most ten times a second.
  void show(int64_t done, int64_t total, const std::string& note = {});
  void clear();

 private:
  const std::string what_;
  const bool terminal_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_;
};

// "[#####-----]", for tests and the line above.
std::string progress_bar(int64_t done, int64_t total, int width);

}  // namespace coppice::tools
