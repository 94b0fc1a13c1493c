// What:    (tests) the decoder once more, in plain loops of double over a checkpoint's tensors,
// with
//          any rule of who sees whom.
// Owns:    the weights as doubles.
// Threads: one.
// Fails:   CHECKs.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "tensor/widen.h"

namespace coppice::model::testing {

struct NaiveMatrix {
  size_t rows = 0, cols = 0;
  std::vector<double> values;  // [rows, cols]
  double& at(size_t row, size_t col) { return values[row * cols + col]; }
  double at(size_t row, size_t col) const { return values[row * cols + col]; }
  static NaiveMatrix zeros(size_t rows, size_t cols) {
    return {rows, cols, std::vector<double>(rows * cols)};
  }
};

// x [T, K] . w [N, K]^T
inline NaiveMatrix naive_product(const NaiveMatrix& x, const NaiveMatrix& w) {
  CHECK(x.cols == w.cols);
  NaiveMatrix out = NaiveMatrix::zeros(x.rows, w.rows);
  for (size_t t = 0; t < x.rows; ++t) {
    for (size_t n = 0; n < w.rows; ++n) {
      for (size_t k = 0; k < x.cols; ++k) out.at(t, n) += x.at(t, k) * w.at(n, k);
    }
  }
  return out;
}

// Every head [D] of x [T, H D], its halves rotated by position times frequency.
inline void naive_rope(NaiveMatrix& x, const std::vector<float>& inv_freq) {
  const size_t half = inv_freq.size();
  for (size_t t = 0; t < x.rows; ++t) {
    for (size_t head = 0; head < x.cols; head += 2 * half) {
      for (size_t i = 0; i < half; ++i) {
        const double angle = static_cast<float>(t) * inv_freq[i];
        double &a = x.at(t, head + i), &b = x.at(t, head + half + i);
        const double turned = a * std::cos(angle) - b * std::sin(angle);
        b = b * std::cos(angle) + a * std::sin(angle);
        a = turned;
      }
    }
  }
}

class NaiveDecoder {
 public:
  explicit NaiveDecoder(const Checkpoint& checkpoint)
      : checkpoint_(checkpoint), config_(checkpoint.config()) {}

  // inputs: what a layer's q, k and v are made of [T, E], before anyone is asked who sees whom.
  using Inputs = std::function<void(int32_t layer, const NaiveMatrix& inputs)>;
  using Sees = std::function<bool(int32_t layer, size_t kv_head, size_t query, size_t key)>;

  // Logits [T, V].
  NaiveMatrix forward(const std::vector<int32_t>& tokens, const Inputs& inputs,
                      const Sees& sees) const {
    const NaiveMatrix embedding = load("model.embed_tokens.weight");
    NaiveMatrix x = NaiveMatrix::zeros(tokens.size(), embedding.cols);
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (size_t i = 0; i < x.cols; ++i) {
        x.at(t, i) = embedding.at(static_cast<size_t>(tokens[t]), i);
      }
    }
    for (int32_t layer = 0; layer < config_.num_hidden_layers; ++layer) {
      const std::string name = "model.layers." + std::to_string(layer) + ".";
      const NaiveMatrix h = normed(x, name + "input_layernorm.weight");
      inputs(layer, h);
      add(x, attention(layer, name + "self_attn.", h, sees));
      add(x, mlp(name + "mlp.", normed(x, name + "post_attention_layernorm.weight")));
    }
    const NaiveMatrix last = normed(x, "model.norm.weight");
    return naive_product(last, config_.tie_word_embeddings ? embedding : load("lm_head.weight"));
  }

 private:
  NaiveMatrix load(const std::string& name) const {
    const Shape shape = checkpoint_.shape(name).value();
    const TensorData data = checkpoint_.tensor(name, shape).value();
    const int64_t rows = shape.rank() == 2 ? shape[0] : 1, cols = shape.elements() / rows;
    NaiveMatrix out = NaiveMatrix::zeros(static_cast<size_t>(rows), static_cast<size_t>(cols));
    std::vector<float> row(out.cols);
    for (size_t r = 0; r < out.rows; ++r) {
      widen_row(data.view.reshaped({rows, cols}), static_cast<int64_t>(r), row.data());
      for (size_t c = 0; c < out.cols; ++c) out.at(r, c) = double{row[c]};
    }
    return out;
  }

  static void add(NaiveMatrix& x, const NaiveMatrix& y) {
    for (size_t i = 0; i < x.values.size(); ++i) x.values[i] += y.values[i];
  }

  // Pieces of `width` of every row are normed on their own.
  NaiveMatrix normed(const NaiveMatrix& x, const std::string& name) const {
    const NaiveMatrix scale = load(name);
    NaiveMatrix out = x;
    for (size_t begin = 0; begin < x.values.size(); begin += scale.cols) {
      double squares = 0;
      for (size_t i = 0; i < scale.cols; ++i) squares += std::pow(x.values[begin + i], 2);
      const double root =
          std::sqrt(squares / static_cast<double>(scale.cols) + config_.rms_norm_eps);
      for (size_t i = 0; i < scale.cols; ++i) {
        out.values[begin + i] = x.values[begin + i] / root * scale.at(0, i);
      }
    }
    return out;
  }

  NaiveMatrix projected(const std::string& name, const NaiveMatrix& x) const {
    NaiveMatrix out = naive_product(x, load(name + ".weight"));
    if (!checkpoint_.has(name + ".bias")) return out;
    const NaiveMatrix bias = load(name + ".bias");
    for (size_t t = 0; t < out.rows; ++t) {
      for (size_t i = 0; i < out.cols; ++i) out.at(t, i) += bias.at(0, i);
    }
    return out;
  }

  NaiveMatrix attention(int32_t layer, const std::string& name, const NaiveMatrix& h,
                        const Sees& sees) const {
    NaiveMatrix q = projected(name + "q_proj", h), k = projected(name + "k_proj", h);
    const NaiveMatrix v = projected(name + "v_proj", h);
    if (config_.qk_norm) {
      q = normed(q, name + "q_norm.weight");
      k = normed(k, name + "k_norm.weight");
    }
    naive_rope(q, config_.rope_inv_freq);
    naive_rope(k, config_.rope_inv_freq);
    const auto dim = static_cast<size_t>(config_.head_dim);
    const auto group =
        static_cast<size_t>(config_.num_attention_heads / config_.num_key_value_heads);
    NaiveMatrix out = NaiveMatrix::zeros(q.rows, q.cols);
    for (size_t head = 0; head < q.cols / dim; ++head) {
      const size_t kv = head / group;
      for (size_t t = 0; t < q.rows; ++t) {
        double sum = 0;
        for (size_t j = 0; j <= t; ++j) {
          if (!sees(layer, kv, t, j)) continue;
          double score = 0;
          for (size_t d = 0; d < dim; ++d) score += q.at(t, head * dim + d) * k.at(j, kv * dim + d);
          const double share = std::exp(score / std::sqrt(static_cast<double>(dim)));
          sum += share;
          for (size_t d = 0; d < dim; ++d)
            out.at(t, head * dim + d) += share * v.at(j, kv * dim + d);
        }
        for (size_t d = 0; d < dim; ++d) out.at(t, head * dim + d) /= sum;
      }
    }
    return projected(name + "o_proj", out);
  }

  NaiveMatrix mlp(const std::string& name, const NaiveMatrix& h) const {
    NaiveMatrix gate = projected(name + "gate_proj", h);
    const NaiveMatrix up = projected(name + "up_proj", h);
    for (size_t i = 0; i < gate.values.size(); ++i) {
      const double g = gate.values[i];
      gate.values[i] = g / (1 + std::exp(-g)) * up.values[i];
    }
    return projected(name + "down_proj", gate);
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
};

}  // namespace coppice::model::testing
