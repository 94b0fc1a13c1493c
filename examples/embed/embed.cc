// Coppice's tree, planner and attention without its model: two users of one prompt share its keys
// and values. Build it against an installed Coppice (make install PREFIX=...):
//   cmake -S examples/embed -B /tmp/embed -DCMAKE_PREFIX_PATH=PREFIX && cmake --build /tmp/embed
#include <cstdio>
#include <random>

#include "kv/kv_cache.h"
#include "ops/backends.h"

int main() {
  auto backend = coppice::ops::make_backend("cpu", {.threads = 2}).value();
  const int layers = 1, heads = 4, kv_heads = 2, dim = 64;
  coppice::kv::KvCacheOptions options{
      .layers = layers, .kv_heads = kv_heads, .head_dim = dim, .budget_bytes = 16 << 20};
  auto cache =
      coppice::kv::KvCache::create(*backend, options, coppice::kv::least_recently_used()).value();

  std::vector<int32_t> prompt(300, 7), other(300, 7);  // 256 tokens in common
  for (size_t i = 256; i < 300; ++i) other[i] = 9;
  const auto a = cache->open("demo", prompt), b = cache->open("demo", other);

  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  while (true) {  // every turn of this loop is one step of an engine
    for (const auto id : {a, b}) {
      const auto progress = cache->progress(id);
      if (!progress.blocked && progress.computed < progress.tokens && !cache->reserve(id, 64))
        return 1;
    }
    const auto& step = cache->plan(coppice::kv::Partition::kTwoPhase);
    const int64_t rows = step.plan.rows;
    if (rows == 0) break;
    std::vector<float> q(rows * heads * dim), k(rows * kv_heads * dim), v(k.size()), out(q.size());
    for (auto* values : {&q, &k, &v}) {
      for (float& x : *values) x = normal(random);  // your model's projections go here
    }
    using coppice::DType, coppice::TensorView;
    backend->write_kv({k.data(), DType::kF32, {rows, kv_heads, dim}},
                      {v.data(), DType::kF32, {rows, kv_heads, dim}}, 0, step.plan, cache->arena());
    backend->attention({q.data(), DType::kF32, {rows, heads, dim}}, {.scale = 0.125f}, step.plan,
                       cache->arena(), {out.data(), DType::kF32, {rows, heads, dim}});
    std::printf("%ld rows, %zu segments, first output %.4f\n", long(rows),
                step.plan.segments.size(), out[0]);
    cache->commit();
  }
  const auto stats = cache->stats();
  std::printf("600 prompt tokens, %ld held in %ld bytes\n", long(stats.tokens_held),
              long(stats.bytes_held));
  return stats.tokens_held == 344 ? 0 : 1;
}
