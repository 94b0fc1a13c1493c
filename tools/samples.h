// What:    repeated measurements of one thing: how long to go on, and their median and spread.
// Owns:    the samples.
// Threads: one.
// Fails:   never; quantiles of nothing are a programmer error.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/check.h"
#include "interrupt.h"

namespace coppice::tools {

class Samples {
 public:
  void add(double x) { values_.push_back(x); }
  size_t count() const { return values_.size(); }
  bool empty() const { return values_.empty(); }
  double at(size_t i) const { return values_.at(i); }  // in the order of add()
  // The sample nearest to that share of them from below.
  double quantile(double q) const {
    CHECK(!empty());
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1) + 0.5)];
  }
  // The sample in the middle, or the mean of the two there.
  double median() const {
    CHECK(!empty());
    std::vector<double> sorted = values_;
    std::sort(sorted.begin(), sorted.end());
    return (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  }

  // key, key_p10, key_p90: nulls where there are no samples.
  void put(nlohmann::ordered_json& json, const std::string& key) const {
    using Json = nlohmann::ordered_json;
    json[key] = empty() ? Json() : Json(median());
    json[key + "_p10"] = empty() ? Json() : Json(quantile(0.1));
    json[key + "_p90"] = empty() ? Json() : Json(quantile(0.9));
  }

 private:
  std::vector<double> values_;
};

// How much to spend on a case: at least so many rounds, and further ones while there is time.
struct Effort {
  int32_t rounds = 9;
  double seconds = 8.0;
};

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  double us() const { return seconds() * 1e6; }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Calls round() until the effort is spent or the command interrupted; never more than kMostRounds
// times.
template <class Round>
void spend(const Effort& effort, const Round& round) {
  constexpr int32_t kMostRounds = 200;
  const Stopwatch spent;
  for (int32_t i = 0; i < std::max(kMostRounds, effort.rounds); ++i) {
    if (i >= effort.rounds && spent.seconds() > effort.seconds) return;
    if (i > 0 && Interrupt::came()) return;
    round();
  }
}

// n-th root of the product; 0 of nothing.
inline double geometric_mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  double logs = 0;
  for (const double value : values) logs += std::log(value);
  return std::exp(logs / static_cast<double>(values.size()));
}

}  // namespace coppice::tools
