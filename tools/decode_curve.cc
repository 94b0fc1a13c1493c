#include "decode_curve.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string>

#include "base/check.h"
#include "coppice/options.h"
#include "samples.h"

namespace coppice::tools {
namespace {

constexpr int32_t kSlice = 512;
constexpr int32_t kMostNodeTokens = 1 << 15;

kv::TokenId token_of(int32_t node, int32_t index) {
  return node * kMostNodeTokens + index % kMostNodeTokens;
}

}  // namespace

Expected<std::unique_ptr<DecodeCurve>> DecodeCurve::create(const DecodeShape& shape,
                                                           const ops::BackendOptions& options) {
  TRY(auto backend, ops::make_backend("cpu", options));
  std::unique_ptr<DecodeCurve> made(new DecodeCurve(shape, std::move(backend)));
  if (made->bytes(true) > available_memory()) {
    return fail(ErrorCode::kTooLarge, "keys and values of this case need " +
                                          format_size(made->bytes(true)) + "; " +
                                          format_size(available_memory()) + " are available");
  }
  TRY_STATUS(made->build(true, made->shared_));
  if (made->bytes(true) + made->bytes(false) < available_memory() / 2) {
    TRY_STATUS(made->build(false, made->copies_));
  }
  return made;
}

DecodeCurve::DecodeCurve(const DecodeShape& shape, std::unique_ptr<ops::Backend> backend)
    : shape_(shape), backend_(std::move(backend)) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto width = static_cast<size_t>(shape.heads * shape.head_dim);
  rows_.resize(width * static_cast<size_t>(std::max(kSlice, shape.batch)));
  for (float& x : rows_) x = normal(random);
  q_.resize(width * static_cast<size_t>(shape.batch));
  for (float& x : q_) x = to_float(to_bf16(normal(random)));
  out_.resize(q_.size());
}

// Of all pages once everything is decoded, and one more per sequence where it parts.
int64_t DecodeCurve::bytes(bool shared) const {
  const int64_t prompts = shared ? 1 : shape_.batch;
  const int64_t tokens =
      prompts * shape_.shared + int64_t{shape_.batch} * (shape_.longest + 2 * 64);
  return tokens * shape_.heads * shape_.head_dim * 2 * 2;
}

Status DecodeCurve::build(bool shared, std::optional<Pages>& out) {
  Pages pages;
  TRY(pages.cache, kv::KvCache::create(*backend_,
                                       {.layers = 1,
                                        .kv_heads = shape_.heads,
                                        .head_dim = shape_.head_dim,
                                        .kv_type = DType::kBF16,
                                        .budget_bytes = bytes(shared)},
                                       kv::least_recently_used()));
  std::vector<kv::TokenId> tokens;
  for (int32_t i = 0; i < shape_.shared; ++i) tokens.push_back(token_of(0, i));
  tokens.push_back(0);
  for (int32_t s = 0; s < shape_.batch; ++s) {
    tokens.back() = token_of(s + 1, 0);
    // A scope of its own shares nothing.
    pages.ids.push_back(pages.cache->open(shared ? "shared" : std::to_string(s), tokens));
  }
  for (const kv::SequenceId id : pages.ids) {
    for (auto progress = pages.cache->progress(id); progress.computed + 1 < progress.tokens;
         progress = pages.cache->progress(id)) {
      const auto rows = std::min<int64_t>(kSlice, progress.tokens - 1 - progress.computed);
      CHECK(pages.cache->reserve(id, static_cast<int32_t>(rows)));
      write(pages, pages.cache->plan(kv::Partition::kTwoPhase));
      pages.cache->commit();
    }
  }
  out = std::move(pages);
  return {};
}

void DecodeCurve::write(Pages& pages, const kv::Step& step) {
  const Shape shape{step.plan.rows, shape_.heads, shape_.head_dim};
  const TensorView rows(rows_.data(), DType::kF32, shape);
  backend_->write_kv(rows, rows, 0, step.plan, pages.cache->arena());
}

void DecodeCurve::attend(Pages& pages, kv::Partition partition) {
  const kv::Step& step = pages.cache->plan(partition);
  const Shape shape{step.plan.rows, shape_.heads, shape_.head_dim};
  const ops::AttentionParams params{.scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
  backend_->attention({q_.data(), DType::kF32, shape}, params, step.plan, pages.cache->arena(),
                      {out_.data(), DType::kF32, shape});
}

void DecodeCurve::finish(Pages& pages) {
  pages.cache->commit();
  for (size_t s = 0; s < pages.ids.size(); ++s) {
    pages.cache->append(pages.ids[s], token_of(static_cast<int32_t>(s) + 1, decoded_ + 1));
  }
}

DecodeCurve::StepTimes DecodeCurve::step(bool timed) {
  StepTimes times;
  for (std::optional<Pages>* pages : {&shared_, &copies_}) {
    if (!*pages) continue;
    Pages& own = **pages;
    const Stopwatch before;
    for (const kv::SequenceId id : own.ids) CHECK(own.cache->reserve(id, 1));
    double common = before.us();
    const kv::Step& step = own.cache->plan(kv::Partition::kTwoPhase);
    const Stopwatch writing;
    write(own, step);
    common += writing.us();
    const auto attention = [&](kv::Partition partition) {
      const Stopwatch call;
      if (timed) attend(own, partition);
      return call.us();
    };
    if (pages == &shared_) {
      times.two_phase = attention(kv::Partition::kTwoPhase);
      times.per_sequence = attention(kv::Partition::kPerSequence);
    } else {
      times.copies = attention(kv::Partition::kPerSequence);
    }
    const Stopwatch after;
    finish(own);
    common += after.us();
    if (pages == &shared_) {
      times.two_phase += common;
      times.per_sequence += common;
    } else {
      *times.copies += common;
    }
  }
  ++decoded_;
  return times;
}

}  // namespace coppice::tools
