#include "train/masked_attention.h"

#include <algorithm>
#include <cmath>

#include <torch/csrc/autograd/custom_function.h>

namespace coppice::train {
namespace {

using torch::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kBlockRows = 128;

// One block of rows [begin, end) over the keys [0, end). N = B * Hkv, R = end - begin.
class RowBlock {
 public:
  // q [N, G, T, D], k [N, T, D]; log_keep [N, T] or undefined.
  RowBlock(const Tensor& q, const Tensor& k, const Tensor& log_keep, const Visibility& visibility,
           int64_t begin)
      : begin_(begin),
        end_(std::min(begin + kBlockRows, q.size(2))),
        n_(q.size(0)),
        g_(q.size(1)),
        d_(q.size(3)),
        scale_(1.0 / std::sqrt(static_cast<double>(d_))),
        q_(rows(q)),
        k_(keys(k)) {
    const int64_t r = end_ - begin_;
    const auto row = torch::arange(begin_, end_).unsqueeze(1), column = torch::arange(end_);
    const auto back = row - column;  // [R, end]
    later_ = back.lt(0);
    if (!log_keep.defined()) {
      bias_ = torch::zeros({1, r, end_}).masked_fill_(later_, -INFINITY);
      return;
    }
    free_ = back.ge(visibility.window).logical_and_(column.ge(visibility.sinks).unsqueeze(0));
    const auto coefficient = log_keep.slice(1, 0, end_).unsqueeze(1).expand({n_, r, end_});
    bias_ = torch::where(free_, coefficient, torch::zeros({}));
    bias_.masked_fill_(later_, -INFINITY);
  }

  bool has_free() const { return free_.defined(); }
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  // Rows of a [N, G, T, x] tensor as [N, G*R, x]; keys of a [N, T, D] one as [N, end, D].
  Tensor rows(const Tensor& x) const {
    return x.slice(2, begin_, end_).reshape({n_, g_ * (end_ - begin_), x.size(3)});
  }
  Tensor keys(const Tensor& x) const { return x.slice(1, 0, end_); }

  // [N, G, R, end], scaled, without coefficients.
  Tensor scores() const {
    return torch::bmm(q_, k_.transpose(1, 2)).mul_(scale_).view({n_, g_, end_ - begin_, end_});
  }
  // log of the coefficients, -infinity for later keys [N or 1, 1, R, end].
  Tensor bias() const { return bias_.unsqueeze(1); }
  // Where the gate decides [R, end].
  const Tensor& free() const { return free_; }
  const Tensor& later() const { return later_; }

  const Tensor& q() const { return q_; }
  const Tensor& k() const { return k_; }
  double scale() const { return scale_; }
  Tensor flat(const Tensor& weights) const {
    return weights.reshape({n_, g_ * (end_ - begin_), end_});
  }

 private:
  int64_t begin_, end_, n_, g_, d_;
  double scale_;
  Tensor q_, k_, bias_, free_, later_;
};

class MaskedAttention : public torch::autograd::Function<MaskedAttention> {
 public:
  // q [N, G, T, D], k, v [N, T, D], keep [N, T] or empty (an undefined tensor cannot be passed).
  static Tensor forward(AutogradContext* context, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& keep, int64_t window, int64_t sinks) {
    const Visibility visibility{window, sinks};
    const Tensor log_keep = keep.numel() > 0 ? keep.log() : Tensor();
    const int64_t n = q.size(0), g = q.size(1), t = q.size(2);
    const auto out = torch::empty_like(q);
    const auto lse = torch::empty({n, g, t});
    for (int64_t begin = 0; begin < t; begin += kBlockRows) {
      const RowBlock block(q, k, log_keep, visibility, begin);
      auto weights = block.scores().add_(block.bias());
      const auto most = weights.amax(-1, true);
      weights.sub_(most).exp_();
      const auto sum = weights.sum(-1, true);
      const auto o = torch::bmm(block.flat(weights), block.keys(v));
      out.slice(2, begin, block.end()).copy_(o.view({n, g, -1, q.size(3)}).div_(sum));
      lse.slice(2, begin, block.end()).copy_((most + sum.log()).squeeze(-1));
    }
    context->save_for_backward({q, k, v, keep, out, lse});
    context->saved_data["window"] = window;
    context->saved_data["sinks"] = sinks;
    // Nothing beneath the first layer of a frozen twin learns.
    context->saved_data["beneath"] = q.requires_grad() || k.requires_grad() || v.requires_grad();
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto saved = context->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &v = saved[2], &keep = saved[3];
    const Tensor &out = saved[4], &lse = saved[5];
    const Visibility visibility{context->saved_data["window"].toInt(),
                                context->saved_data["sinks"].toInt()};
    const bool gated = keep.numel() > 0, beneath = context->saved_data["beneath"].toBool();
    const Tensor log_keep = gated ? keep.log() : Tensor();
    const auto dout = grads[0].contiguous();
    const auto dq = torch::empty_like(q);
    const auto dk = torch::zeros_like(k), dv = torch::zeros_like(v);
    const auto dkeep = gated ? torch::zeros_like(keep) : Tensor();
    const auto delta = (dout * out).sum(-1, true);  // [N, G, T, 1]
    for (int64_t begin = 0; begin < q.size(2); begin += kBlockRows) {
      const RowBlock block(q, k, log_keep, visibility, begin);
      const auto rows = [&](const Tensor& x) { return x.slice(2, begin, block.end()); };
      // With respect to the row's sum: weights with coefficients, and their gradients.
      auto beyond = block.scores().sub_(rows(lse).unsqueeze(-1));
      const auto weights = (beyond + block.bias()).exp_();
      const auto dout_rows = block.rows(dout);
      auto change = torch::bmm(dout_rows, block.keys(v).transpose(1, 2))
                        .view(weights.sizes())
                        .sub_(rows(delta));
      if (block.has_free()) {
        dkeep.slice(1, 0, block.end())
            .add_(keep_gradient(block, beyond, weights, change, keep.slice(1, 0, block.end())));
      }
      if (!beneath) continue;
      block_add(dv, block, block.flat(weights).transpose(1, 2), dout_rows);
      const auto dscores = block.flat(change.mul_(weights)).mul_(block.scale());
      rows(dq).copy_(torch::bmm(dscores, block.k()).view(rows(dq).sizes()));
      block_add(dk, block, dscores.transpose(1, 2), block.q());
    }
    if (!beneath) return {Tensor(), Tensor(), Tensor(), dkeep, Tensor(), Tensor()};
    return {dq, dk, dv, dkeep, Tensor(), Tensor()};
  }

 private:
  static void block_add(const Tensor& into, const RowBlock& block, const Tensor& a,
                        const Tensor& b) {
    into.slice(1, 0, block.end()).add_(torch::bmm(a, b));
  }

  // [N, end] over the block's rows; consumes beyond.
  static Tensor keep_gradient(const RowBlock& block, Tensor& beyond, const Tensor& weights,
                              const Tensor& change, const Tensor& keep) {
    const auto dropped = keep.eq(0);  // [N, end]
    const auto kept = keep.masked_fill(dropped, 1);
    auto out = (weights * block.free()).mul_(change).sum({1, 2}).div_(kept);
    if (dropped.any().item<bool>()) {
      beyond.sigmoid_().mul_(change).mul_(block.free());
      out = torch::where(dropped, beyond.sum({1, 2}), out);
    }
    return out;
  }
};

class StraightThrough : public torch::autograd::Function<StraightThrough> {
 public:
  static Tensor forward(AutogradContext*, const Tensor& soft, const Tensor& hard) {
    return hard.clone();
  }
  static variable_list backward(AutogradContext*, variable_list grads) {
    return {grads[0], Tensor()};
  }
};

}  // namespace

torch::Tensor masked_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                               const Tensor& keep, const Visibility& visibility) {
  const int64_t b = q.size(0), t = q.size(2), d = q.size(3), hkv = k.size(1);
  const int64_t n = b * hkv, group = q.size(1) / hkv;
  const auto out = MaskedAttention::apply(q.reshape({n, group, t, d}), k.reshape({n, t, d}),
                                          v.reshape({n, t, d}),
                                          keep.defined() ? keep.reshape({n, t}) : torch::empty({0}),
                                          visibility.window, visibility.sinks);
  return out.view(q.sizes());
}

torch::Tensor straight_through(const Tensor& soft, const Tensor& hard) {
  return StraightThrough::apply(soft, hard);
}

}  // namespace coppice::train
