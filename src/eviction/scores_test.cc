// Every score again, straight from its paper's formula in double, over a small model's own keys and
// queries.
#include "eviction/scores.h"

#include <algorithm>
#include <cmath>
#include <complex>

#include "eviction/test_model.h"

namespace coppice::eviction {
namespace {

using testing::TestModel;
using testing::token_noise;

constexpr int32_t kTokens = 57;
constexpr Room kRoom{.context = 64, .beyond = 80, .questions = 1, .tail = 8};

class ScoresTest : public ::testing::Test {
 protected:
  ScoresTest() : context_(model_.context(kRoom)) { context_->read(token_noise(1, kTokens)); }

  ContextView view() { return ContextView(*context_); }

  static double dot(const float* a, const float* b, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; ++i) sum += double{a[i]} * double{b[i]};
    return sum;
  }
  // softmax over keys [0, row] of a query head.
  static std::vector<double> attention(const ContextView& v, int32_t list, int32_t g, int32_t row) {
    std::vector<double> out(static_cast<size_t>(v.rows()));
    double total = 0;
    for (int32_t i = 0; i <= row; ++i) {
      const double score = dot(v.query(list, g, row), v.key(list, i), v.dim());
      total += out[static_cast<size_t>(i)] = std::exp(score / std::sqrt(double{1.0} * v.dim()));
    }
    for (double& x : out) x /= total;
    return out;
  }
  static void expect_near(const ContextView& v, const Scores& scores,
                          const std::function<double(int32_t list, int32_t token)>& expected) {
    ASSERT_EQ(std::ssize(scores), int64_t{v.lists()} * v.tokens());
    for (int32_t list = 0; list < v.lists(); ++list) {
      for (int32_t t = 0; t < v.tokens(); ++t) {
        const double wanted = expected(list, t);
        EXPECT_NEAR(scores[static_cast<size_t>(list * v.tokens() + t)], wanted,
                    1e-5 + 1e-3 * std::abs(wanted))
            << "list " << list << ", token " << t;
      }
    }
  }

  TestModel model_;
  std::unique_ptr<KeptContext> context_;
};

TEST_F(ScoresTest, AttentionIsTheModelsOwn) {
  const ContextView v = view();
  std::vector<float> paid;
  for (const int32_t row : {0, 1, 30, kTokens - 1}) {
    v.attention(1, 0, row, paid);
    const auto wanted = attention(v, 1, 0, row);
    double sum = 0;
    for (int32_t i = 0; i <= row; ++i) {
      EXPECT_NEAR(paid[static_cast<size_t>(i)], wanted[static_cast<size_t>(i)], 1e-5);
      sum += double{paid[static_cast<size_t>(i)]};
    }
    EXPECT_NEAR(sum, 1.0, 1e-4);
  }
}

TEST_F(ScoresTest, H2o) {
  const ContextView v = view();
  expect_near(v, h2o_scores(v), [&](int32_t list, int32_t t) {
    double sum = 0;
    for (int32_t g = 0; g < v.group(); ++g) {
      for (int32_t row = t; row < kTokens; ++row) {
        sum += attention(v, list, g, row)[static_cast<size_t>(t)];
      }
    }
    return sum / (kTokens - t);
  });
}

TEST_F(ScoresTest, Tova) {
  const ContextView v = view();
  const int32_t heads = v.lists() / v.layers();
  expect_near(v, tova_scores(v), [&](int32_t list, int32_t t) {
    double sum = 0;
    for (int32_t head = 0; head < heads; ++head) {
      for (int32_t g = 0; g < v.group(); ++g) {
        sum += attention(v, list / heads * heads + head, g, kTokens - 1)[static_cast<size_t>(t)];
      }
    }
    return sum;
  });
}

TEST_F(ScoresTest, SnapKvOfTheContextsEndAndOfAQuestion) {
  for (const bool question : {false, true}) {
    if (question) context_->read_beyond(token_noise(8, 6));
    const ContextView v = view();
    const int32_t begin = question ? kTokens : kTokens - 32, end = question ? kTokens + 6 : kTokens;
    const auto plain = [&](int32_t list, int32_t t) {
      double sum = 0;
      for (int32_t g = 0; g < v.group(); ++g) {
        for (int32_t row = std::max(begin, t); row < end; ++row) {
          sum += attention(v, list, g, row)[static_cast<size_t>(t)];
        }
      }
      return sum;
    };
    expect_near(v, snapkv_scores(v, begin, end), [&](int32_t list, int32_t t) {
      double sum = 0;
      for (int32_t i = std::max(0, t - 2); i <= std::min(kTokens - 1, t + 2); ++i) {
        sum += plain(list, i);
      }
      return sum / 5;
    });
  }
}

TEST_F(ScoresTest, KeyDiff) {
  const ContextView v = view();
  expect_near(v, keydiff_scores(v), [&](int32_t list, int32_t t) {
    std::vector<double> mean(static_cast<size_t>(v.dim()));
    const auto norm = [&](int32_t i) {
      return std::sqrt(dot(v.key(list, i), v.key(list, i), v.dim()));
    };
    for (int32_t i = 0; i < kTokens; ++i) {
      for (int32_t d = 0; d < v.dim(); ++d) {
        mean[static_cast<size_t>(d)] += double{v.key(list, i)[d]} / norm(i);
      }
    }
    double product = 0, squares = 0;
    for (int32_t d = 0; d < v.dim(); ++d) {
      product += mean[static_cast<size_t>(d)] * double{v.key(list, t)[d]};
      squares += mean[static_cast<size_t>(d)] * mean[static_cast<size_t>(d)];
    }
    return -product / (norm(t) * std::sqrt(squares));
  });
}

TEST_F(ScoresTest, ExpectedAttention) {
  const ContextView v = view();
  const int32_t dim = v.dim(), half = dim / 2;
  const auto width = static_cast<size_t>(dim);
  // E over positions to come of a rotation is a matrix, applied to the queries' mean and
  // covariance.
  std::vector<std::complex<double>> mean_turn(static_cast<size_t>(half));
  for (int32_t i = 0; i < half; ++i) {
    for (int32_t p = kTokens; p < kTokens + 512; ++p) {
      mean_turn[static_cast<size_t>(i)] +=
          std::polar(1.0 / 512, double{v.inverse_frequencies()[static_cast<size_t>(i)]} * p);
    }
  }
  std::vector<std::vector<double>> shares;  // [lists] of [T], summed over the group
  for (int32_t list = 0; list < v.lists(); ++list) {
    auto& sums = shares.emplace_back(static_cast<size_t>(kTokens));
    for (int32_t g = 0; g < v.group(); ++g) {
      std::vector<std::vector<double>> queries;
      std::vector<double> mean(width);
      constexpr int32_t kFirst = 4, kCounted = kTokens - kFirst;  // the sinks are apart
      for (int32_t t = kFirst; t < kTokens; ++t) {
        auto& q = queries.emplace_back(width);
        for (int32_t i = 0; i < half; ++i) {
          const double f = double{v.inverse_frequencies()[static_cast<size_t>(i)]};
          const std::complex<double> x(v.query(list, g, t)[i], v.query(list, g, t)[half + i]);
          const auto y = x * std::polar(1.0, -f * t) * mean_turn[static_cast<size_t>(i)];
          q[static_cast<size_t>(i)] = y.real();
          q[static_cast<size_t>(half + i)] = y.imag();
        }
        for (size_t d = 0; d < width; ++d) mean[d] += q[d] / kCounted;
      }
      std::vector<double> weights;
      double total = 0;
      for (int32_t t = kFirst; t < kTokens; ++t) {
        double first = 0, second = 0;
        for (size_t d = 0; d < width; ++d) first += mean[d] * double{v.key(list, t)[d]};
        for (const auto& q : queries) {
          double along = 0;
          for (size_t d = 0; d < width; ++d) along += (q[d] - mean[d]) * double{v.key(list, t)[d]};
          second += along * along / kCounted;
        }
        const double n = dim;
        weights.push_back(std::exp(first / std::sqrt(n) + second / (2 * n)));
        total += weights.back();
      }
      for (size_t t = 0; t < weights.size(); ++t) sums[kFirst + t] += weights[t] / total;
    }
  }
  expect_near(v, expected_attention_scores(v), [&](int32_t list, int32_t t) {
    const auto score = [&](int32_t i) {
      const float* value = v.value(list, i);
      return shares[static_cast<size_t>(list)][static_cast<size_t>(i)] *
             std::sqrt(dot(value, value, dim));
    };
    if (t >= 4) return std::log(score(t));
    double most = 0;
    for (int32_t i = 4; i < kTokens; ++i) most = std::max(most, score(i));
    return std::log(most);
  });
}

TEST_F(ScoresTest, KvZip) {
  context_->read_beyond(token_noise(1, kTokens));  // the same once more
  const ContextView v = view();
  EXPECT_EQ(v.rows(), 2 * kTokens);
  expect_near(v, kvzip_scores(v), [&](int32_t list, int32_t t) {
    double most = 0;
    for (int32_t g = 0; g < v.group(); ++g) {
      for (int32_t row = kTokens; row < v.rows(); ++row) {
        most = std::max(most, attention(v, list, g, row)[static_cast<size_t>(t)]);
      }
    }
    return most;
  });
}

TEST_F(ScoresTest, FarAttention) {
  context_->read_beyond(token_noise(8, 6));
  const ContextView v = view();
  const auto far = far_attention(v, 30, 2, 3);
  for (int32_t list = 0; list < v.lists(); ++list) {
    double sum = 0;
    for (int32_t g = 0; g < v.group(); ++g) {
      for (int32_t row = 30; row < kTokens + 6; ++row) {
        const auto paid = attention(v, list, g, row);
        for (int32_t i = 2; row - i >= 3 && i < kTokens; ++i) sum += paid[static_cast<size_t>(i)];
      }
    }
    EXPECT_NEAR(far[static_cast<size_t>(list)], sum / (v.group() * (kTokens + 6 - 30)), 1e-5);
  }
}

}  // namespace
}  // namespace coppice::eviction
