#include "gemm_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/splitmix.h"
#include "coppice/options.h"
#include "tensor/quant_block.h"

namespace coppice::tools {
namespace {

// Copies outgrow the cache so many times, unless they would be more than kMostCopies.
constexpr int64_t kCacheTimes = 4;
constexpr int64_t kMostCopies = 256;

uint64_t random_bits(uint64_t& state) { return splitmix(state += kGoldenGamma); }

// Uniform in [-1, 1].
float random_value(uint64_t& state) {
  return static_cast<float>(static_cast<int64_t>(random_bits(state)) >> 40) * 0x1p-23f;
}

void fill_random(std::byte* bytes, int64_t count, uint64_t& state) {
  for (int64_t i = 0; i < count; i += 8) {
    const uint64_t bits = random_bits(state);
    std::memcpy(bytes + i, &bits, static_cast<size_t>(std::min<int64_t>(8, count - i)));
  }
}

// Every byte of a quantised block is valid but its f16 scales, which get ordinary values.
void fill_blocks(DType type, std::byte* bytes, int64_t blocks, uint64_t& state) {
  const int64_t size = dtype_block_bytes(type);
  fill_random(bytes, blocks * size, state);
  const auto put = [&](std::byte* at) {
    const f16 scale = to_f16(0.01f + 0.005f * random_value(state));
    std::memcpy(at, &scale, sizeof(scale));
  };
  const size_t scale_at = type == DType::kQ6_K ? offsetof(BlockQ6_K, scale) : 0;
  for (int64_t b = 0; b < blocks; ++b) {
    put(bytes + b * size + scale_at);
    if (quant_format(type).mins) put(bytes + b * size + offsetof(BlockQ4_K, min_scale));
  }
}

void fill_weight(const TensorView& w) {
  uint64_t state = 1;
  if (is_quantised(w.type())) {
    const int64_t blocks = w.elements() / dtype_block(w.type());
    return fill_blocks(w.type(), static_cast<std::byte*>(w.raw()), blocks, state);
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(w.shape()[1]));
  for (int64_t i = 0; i < w.elements(); ++i) {
    const float value = scale * random_value(state);
    if (w.type() == DType::kF32) {
      w.f32()[i] = value;
    } else {
      w.as_bf16()[i] = to_bf16(value);
    }
  }
}

}  // namespace

Expected<std::unique_ptr<GemmCase>> GemmCase::create(DType type, int64_t most_rows,
                                                     const ops::BackendOptions& options) {
  ops::BackendOptions chosen = options;
  chosen.weights = type == DType::kF32 ? DType::kF32 : DType::kBF16;
  TRY(auto backend, ops::make_backend("cpu", chosen));
  return std::unique_ptr<GemmCase>(new GemmCase(type, most_rows, std::move(backend)));
}

Status GemmCase::load(const GemmShape& shape, int64_t cache) {
  weights_.clear();
  shape_ = shape;
  next_ = 0;
  const int64_t bytes = dtype_bytes(type_, shape.n * shape.k);
  const int64_t outgrow = (kCacheTimes * cache + bytes - 1) / bytes;
  const int64_t copies = std::clamp<int64_t>(outgrow, 2, kMostCopies);
  const int64_t needed = (copies + 1) * bytes + most_rows_ * (shape.n + shape.k) * 4;
  if (needed > available_memory()) {
    return fail(ErrorCode::kTooLarge, "weights of " + std::to_string(shape.n) + "x" +
                                          std::to_string(shape.k) + " need " + format_size(needed) +
                                          " with their copies; " + format_size(available_memory()) +
                                          " are available");
  }
  TRY(const Buffer source, Buffer::allocate(bytes));
  const TensorView view = source.view(type_, {shape.n, shape.k});
  fill_weight(view);
  for (int64_t copy = 0; copy < copies; ++copy) {
    TRY(weights_.emplace_back(), backend_->load_weight(view));
  }
  has_cold_ = copies * weight_bytes() > 2 * cache;
  uint64_t state = 2;
  x_.resize(static_cast<size_t>(most_rows_ * shape.k));
  for (float& x : x_) x = random_value(state);
  out_.resize(static_cast<size_t>(most_rows_ * shape.n));
  return {};
}

void GemmCase::multiply(int64_t rows, bool cold) {
  if (cold) next_ = (next_ + 1) % weights_.size();
  backend_->matmul({x_.data(), DType::kF32, {rows, shape_.k}}, *weights_[next_], {},
                   {out_.data(), DType::kF32, {rows, shape_.n}});
}

double GemmCase::flops(int64_t rows) const {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(shape_.n) *
         static_cast<double>(shape_.k);
}

double GemmCase::bytes(int64_t rows) const {
  return static_cast<double>(weight_bytes()) +
         4.0 * static_cast<double>(rows) * static_cast<double>(shape_.n + shape_.k);
}

}  // namespace coppice::tools
