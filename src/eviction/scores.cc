#include "eviction/scores.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>

#include "base/check.h"

namespace coppice::eviction {
namespace {

// Sums in lanes, so that it is fast without reordering by the compiler.
float dot(const float* a, const float* b, int32_t n) {
  constexpr int32_t kLanes = 16;
  float sums[kLanes] = {};
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  float sum = 0;
  for (const float s : sums) sum += s;
  return sum;
}

void softmax(float* x, int32_t n) {
  const float most = *std::max_element(x, x + n);
  float sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += x[i] = std::exp(x[i] - most);
  for (int32_t i = 0; i < n; ++i) x[i] /= sum;
}

void log_softmax(float* x, int32_t n) {
  const float most = *std::max_element(x, x + n);
  double sum = 0;
  for (int32_t i = 0; i < n; ++i) sum += std::exp(double{x[i]} - double{most});
  const float log_sum = most + static_cast<float>(std::log(sum));
  for (int32_t i = 0; i < n; ++i) x[i] -= log_sum;
}

// log(exp(a) + exp(b))
float log_add(float a, float b) {
  const float more = std::max(a, b);
  return more + std::log1p(std::exp(std::min(a, b) - more));
}

size_t index(const ContextView& view, int32_t list, int32_t token) {
  return static_cast<size_t>(int64_t{list} * view.tokens() + token);
}

Scores zeros(const ContextView& view) {
  return Scores(static_cast<size_t>(int64_t{view.lists()} * view.tokens()));
}

// x [T] <- the mean of each and its neighbours within `radius`.
void smooth(float* x, int32_t tokens, int32_t radius) {
  const std::vector<float> from(x, x + tokens);
  for (int32_t t = 0; t < tokens; ++t) {
    const int32_t first = std::max(0, t - radius), last = std::min(tokens - 1, t + radius);
    float sum = 0;
    for (int32_t i = first; i <= last; ++i) sum += from[static_cast<size_t>(i)];
    x[t] = sum / static_cast<float>(2 * radius + 1);
  }
}

}  // namespace

ContextView::ContextView(KeptContext& context)
    : config_(context.config()),
      log_(context.log()),
      tokens_(context.tokens()),
      rows_(context.tokens_read()) {
  CHECK(log_.rows() == rows_);
  keys_.resize(static_cast<size_t>(lists()));
  values_.resize(keys_.size());
  for (int32_t list = 0; list < lists(); ++list) {
    context.read_list(list, keys_[static_cast<size_t>(list)], values_[static_cast<size_t>(list)]);
  }
}

const float* ContextView::query(int32_t list, int32_t g, int32_t row) const {
  const int32_t layer = list / config_.num_key_value_heads;
  const int32_t head = list % config_.num_key_value_heads * group() + g;
  return log_.row(layer, row) + int64_t{head} * dim();
}

void ContextView::attention(int32_t list, int32_t g, int32_t row, std::vector<float>& out) const {
  out.resize(static_cast<size_t>(rows_));
  const float* q = query(list, g, row);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim()));
  for (int32_t i = 0; i <= row; ++i) {
    out[static_cast<size_t>(i)] = dot(q, key(list, i), dim()) * scale;
  }
  softmax(out.data(), row + 1);
}

Scores h2o_scores(const ContextView& view) {
  Scores scores = zeros(view);
  std::vector<float> paid;
  for (int32_t list = 0; list < view.lists(); ++list) {
    float* const sums = scores.data() + index(view, list, 0);
    for (int32_t g = 0; g < view.group(); ++g) {
      for (int32_t row = 0; row < view.tokens(); ++row) {
        view.attention(list, g, row, paid);
        for (int32_t i = 0; i <= row; ++i) sums[i] += paid[static_cast<size_t>(i)];
      }
    }
    for (int32_t i = 0; i < view.tokens(); ++i) sums[i] /= static_cast<float>(view.tokens() - i);
  }
  return scores;
}

Scores tova_scores(const ContextView& view) {
  Scores scores = zeros(view);
  std::vector<float> paid;
  const int32_t layers = view.layers(), heads = view.lists() / layers;
  for (int32_t layer = 0; layer < layers; ++layer) {
    std::vector<float> sums(static_cast<size_t>(view.tokens()));
    for (int32_t head = 0; head < heads; ++head) {
      for (int32_t g = 0; g < view.group(); ++g) {
        view.attention(layer * heads + head, g, view.tokens() - 1, paid);
        for (size_t i = 0; i < sums.size(); ++i) sums[i] += paid[i];
      }
    }
    for (int32_t head = 0; head < heads; ++head) {
      std::ranges::copy(
          sums, scores.begin() + static_cast<int64_t>(index(view, layer * heads + head, 0)));
    }
  }
  return scores;
}

Scores snapkv_scores(const ContextView& view, int32_t begin, int32_t end) {
  CHECK(begin < end && end <= view.rows());
  Scores scores = zeros(view);
  std::vector<float> paid;
  for (int32_t list = 0; list < view.lists(); ++list) {
    float* const sums = scores.data() + index(view, list, 0);
    for (int32_t g = 0; g < view.group(); ++g) {
      for (int32_t row = std::max(0, begin); row < end; ++row) {
        view.attention(list, g, row, paid);
        const int32_t seen = std::min(row + 1, view.tokens());
        for (int32_t i = 0; i < seen; ++i) sums[i] += paid[static_cast<size_t>(i)];
      }
    }
    smooth(sums, view.tokens(), 2);
  }
  return scores;
}

Scores keydiff_scores(const ContextView& view) {
  Scores scores = zeros(view);
  const int32_t dim = view.dim();
  std::vector<float> unit(static_cast<size_t>(view.tokens() * dim)), mean;
  for (int32_t list = 0; list < view.lists(); ++list) {
    mean.assign(static_cast<size_t>(dim), 0);
    for (int32_t t = 0; t < view.tokens(); ++t) {
      const float* key = view.key(list, t);
      const float norm = std::max(1e-12f, std::sqrt(dot(key, key, dim)));
      for (int32_t d = 0; d < dim; ++d) {
        mean[static_cast<size_t>(d)] += unit[static_cast<size_t>(t * dim + d)] = key[d] / norm;
      }
    }
    const float norm = std::max(1e-12f, std::sqrt(dot(mean.data(), mean.data(), dim)));
    for (int32_t t = 0; t < view.tokens(); ++t) {
      scores[index(view, list, t)] = -dot(unit.data() + t * dim, mean.data(), dim) / norm;
    }
  }
  return scores;
}

namespace {

// Halves of a head as complex numbers: rotation by position p multiplies pair i by e^(i p f_i).
using Pairs = std::vector<std::complex<double>>;

// The mean rotation from position 0 to [first, first + count) for each pair [D/2].
Pairs mean_rotation(const std::vector<float>& frequencies, int32_t first, int32_t count) {
  Pairs mean;
  for (const float f : frequencies) {
    std::complex<double> sum = 0;
    for (int32_t i = 0; i < count; ++i) sum += std::polar(1.0, double{f} * (first + i));
    mean.push_back(sum / static_cast<double>(count));
  }
  return mean;
}

// Mean and covariance of the queries that may come: those of the context without their positions,
// turned by `rotation`.
struct QueryStatistics {
  std::vector<float> mean;        // [D]
  std::vector<float> covariance;  // [D][D]
};

// first: the tokens before are left out.
QueryStatistics query_statistics(const ContextView& view, int32_t list, int32_t g, int32_t first,
                                 const Pairs& rotation) {
  const int32_t dim = view.dim(), half = dim / 2, tokens = view.tokens() - first;
  const auto width = static_cast<size_t>(dim);
  std::vector<double> turned(static_cast<size_t>(tokens) * width);
  std::vector<double> mean(width);
  for (int32_t t = 0; t < tokens; ++t) {
    const float* q = view.query(list, g, first + t);
    double* const to = turned.data() + static_cast<size_t>(t) * width;
    for (int32_t i = 0; i < half; ++i) {
      const double angle = double{view.inverse_frequencies()[static_cast<size_t>(i)]} * (first + t);
      const auto x = std::complex<double>(q[i], q[half + i]) * std::polar(1.0, -angle) *
                     rotation[static_cast<size_t>(i)];
      to[i] = x.real();
      to[half + i] = x.imag();
    }
    for (size_t d = 0; d < width; ++d) mean[d] += to[d] / tokens;
  }
  QueryStatistics out;
  out.mean.assign(mean.begin(), mean.end());
  out.covariance.assign(width * width, 0);
  for (int32_t t = 0; t < tokens; ++t) {
    const double* const from = turned.data() + static_cast<size_t>(t) * width;
    for (size_t a = 0; a < width; ++a) {
      const auto left = static_cast<float>((from[a] - mean[a]) / tokens);
      for (size_t b = 0; b < width; ++b) {
        out.covariance[a * width + b] += left * static_cast<float>(from[b] - mean[b]);
      }
    }
  }
  return out;
}

}  // namespace

Scores expected_attention_scores(const ContextView& view) {
  constexpr int32_t kAhead = 512;
  // The first tokens gather attention whatever is asked; they are kept, and not counted with.
  const int32_t first = std::min(4, view.tokens() - 1);
  Scores scores = zeros(view);
  const int32_t dim = view.dim(), tokens = view.tokens();
  const Pairs rotation = mean_rotation(view.inverse_frequencies(), tokens, kAhead);
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::vector<float> logits(static_cast<size_t>(tokens));
  for (int32_t list = 0; list < view.lists(); ++list) {
    for (int32_t g = 0; g < view.group(); ++g) {
      const QueryStatistics statistics = query_statistics(view, list, g, first, rotation);
      for (int32_t t = first; t < tokens; ++t) {
        const float* key = view.key(list, t);
        float spread = 0;
        for (int32_t d = 0; d < dim; ++d) {
          spread += key[d] * dot(statistics.covariance.data() + int64_t{d} * dim, key, dim);
        }
        logits[static_cast<size_t>(t)] =
            dot(statistics.mean.data(), key, dim) * scale + spread * scale * scale / 2;
      }
      log_softmax(logits.data() + first, tokens - first);
      for (int32_t t = first; t < tokens; ++t) {
        float& score = scores[index(view, list, t)];
        const float more = logits[static_cast<size_t>(t)];
        score = g == 0 ? more : log_add(score, more);
      }
    }
    float most = -std::numeric_limits<float>::infinity();
    for (int32_t t = first; t < tokens; ++t) {
      const float* value = view.value(list, t);
      float& score = scores[index(view, list, t)];
      score += std::log(dot(value, value, dim)) / 2;
      most = std::max(most, score);
    }
    for (int32_t t = 0; t < first; ++t) scores[index(view, list, t)] = most;
  }
  return scores;
}

Scores kvzip_scores(const ContextView& view) {
  CHECK(view.rows() > view.tokens());
  Scores scores = zeros(view);
  std::vector<float> paid;
  for (int32_t list = 0; list < view.lists(); ++list) {
    float* const most = scores.data() + index(view, list, 0);
    for (int32_t g = 0; g < view.group(); ++g) {
      for (int32_t row = view.tokens(); row < view.rows(); ++row) {
        view.attention(list, g, row, paid);
        for (int32_t i = 0; i < view.tokens(); ++i) {
          most[i] = std::max(most[i], paid[static_cast<size_t>(i)]);
        }
      }
    }
  }
  return scores;
}

std::vector<double> far_attention(const ContextView& view, int32_t begin, int32_t sinks,
                                  int32_t window) {
  std::vector<double> far(static_cast<size_t>(view.lists()));
  std::vector<float> paid;
  for (int32_t list = 0; list < view.lists(); ++list) {
    int64_t rows = 0;
    for (int32_t g = 0; g < view.group(); ++g) {
      for (int32_t row = begin; row < view.rows(); ++row, ++rows) {
        view.attention(list, g, row, paid);
        for (int32_t i = sinks; i <= row - window && i < view.tokens(); ++i) {
          far[static_cast<size_t>(list)] += paid[static_cast<size_t>(i)];
        }
      }
    }
    far[static_cast<size_t>(list)] /= static_cast<double>(std::max<int64_t>(1, rows));
  }
  return far;
}

}  // namespace coppice::eviction
