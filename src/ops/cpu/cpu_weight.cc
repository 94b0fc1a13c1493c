#include "ops/cpu/cpu_weight.h"

#include <algorithm>

#include "ops/op_checks.h"

namespace coppice::ops::cpu {
namespace {

// In multiply-adds or bytes moved: some 5 us of work, where waking another thread begins to pay.
constexpr int64_t kWorthSharing = 200'000;
constexpr int64_t kRunsPerThread = 4;

const CpuWeight& weight_of(const Product& product) {
  return static_cast<const CpuWeight&>(product.weight);
}

// Products that read the same prepared rows. All are cut into as many parts, and the same part of
// each comes together: a thread, or a group of threads, gets the same share of every weight that it
// packed.
void multiply_alike(ThreadPool& pool, const TensorView& x, std::span<const Product> products) {
  const int64_t rows = x.shape()[0], each = static_cast<int64_t>(products.size());
  int64_t parts = 0;
  for (const Product& product : products) {
    parts = std::max(parts, weight_of(product).part_count(pool, rows));
  }
  weight_of(products.front()).prepare(pool, x);
  pool.parallel_for(static_cast<int32_t>(parts * each), [&](int32_t item, int32_t thread) {
    const Product& product = products[static_cast<size_t>(item % each)];
    weight_of(product).multiply_part({.x = x.f32(),
                                      .rows = rows,
                                      .bias = product.bias.empty() ? nullptr : product.bias.f32(),
                                      .out = product.out.f32(),
                                      .index = item / each,
                                      .count = parts,
                                      .thread = thread});
  });
}

}  // namespace

void multiply_each(ThreadPool& pool, const TensorView& x, std::span<const Product> products) {
  for (const Product& product : products) {
    check_matmul(x, product.weight, product.bias, product.out);
  }
  if (x.shape()[0] == 0) return;
  while (!products.empty()) {
    size_t alike = 1;
    while (alike < products.size() && weight_of(products[alike]).prepared_rows() ==
                                          weight_of(products.front()).prepared_rows()) {
      ++alike;
    }
    multiply_alike(pool, x, products.first(alike));
    products = products.subspan(alike);
  }
}

void CpuWeight::multiply(ThreadPool& pool, const TensorView& x, const TensorView& bias,
                         const TensorView& out) const {
  const Product alone{*this, bias, out};
  multiply_each(pool, x, {&alone, 1});
}

int64_t count_runs(const ThreadPool& pool, int64_t count, int64_t cost_of_one) {
  if (pool.threads() == 1 || count * cost_of_one < kWorthSharing) return 1;
  return std::min(count, kRunsPerThread * pool.threads());
}

}  // namespace coppice::ops::cpu
