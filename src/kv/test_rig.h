// What:    what the room's tests share: a backend with readable pages, and a cache driven by hand
//          whose "model" writes a hash of each token's whole prefix as its key and value.
// Owns:    the cache, the backend, the tokens of the live sequences.
// Threads: one.
// Fails:   by GoogleTest assertions.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kv/cache.h"

namespace coppice::kv {

using Tokens = std::vector<TokenId>;

// Pages are K [P][D] then V [P][D], f32. Everything that a cache does not need dies.
class PageBackend final : public ops::Backend {
 public:
  explicit PageBackend(int32_t page_slots) : page_slots_(page_slots) {}

  std::string_view name() const override { return "pages"; }
  std::string describe() const override { return "pages for tests"; }
  Expected<Buffer> allocate(int64_t bytes) override {
    auto buffer = Buffer::allocate(bytes);
    if (buffer) std::memset(buffer->data(), 0x7f, static_cast<size_t>(bytes));  // not zero
    return buffer;
  }
  Expected<ops::KvLayout> kv_layout(DType type, int32_t head_dim) override {
    return ops::KvLayout{type, head_dim, page_slots_,
                         int64_t{page_slots_} * head_dim * 2 * int64_t{sizeof(float)}};
  }
  void zero_pages(const ops::KvArena& arena, std::span<const PageId> ids) override {
    for (PageId id : ids) {
      std::memset(arena.page(id), 0, static_cast<size_t>(arena.layout.page_bytes));
    }
    pages_zeroed += static_cast<int64_t>(ids.size());
  }
  void copy_slots(const ops::KvArena& arena, PageId from, int32_t from_slot, PageId to,
                  int32_t to_slot, int32_t slots) override {
    CHECK(slots > 0 && from_slot >= 0 && from_slot + slots <= page_slots_);
    CHECK(to_slot >= 0 && to_slot + slots <= page_slots_ && (from != to || to_slot < from_slot));
    const size_t bytes = static_cast<size_t>(slots * arena.layout.head_dim) * sizeof(float);
    for (int32_t kind = 0; kind < 2; ++kind) {
      std::memmove(at(arena, to, kind, to_slot), at(arena, from, kind, from_slot), bytes);
    }
  }
  void read_page(const ops::KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    const size_t bytes = static_cast<size_t>(slots * arena.layout.head_dim) * sizeof(float);
    std::memcpy(k.f32(), at(arena, id, 0, 0), bytes);
    std::memcpy(v.f32(), at(arena, id, 1, 0), bytes);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                const ops::AttentionPlan& plan, const ops::KvArena& arena) override {
    const int32_t d = arena.layout.head_dim;
    for (int32_t row = 0; row < plan.rows; ++row) {
      for (int32_t head = 0; head < plan.kv_heads; ++head) {
        const int32_t list = layer * plan.kv_heads + head;
        const ops::KvTarget target = plan.target(list, row);
        const ops::KvPart& part = plan.parts[static_cast<size_t>(target.part)];
        const int32_t slot = target.slot - part.list_start(list);
        const PageId id = part.list_pages(list)[slot / page_slots_];
        const int64_t offset = (int64_t{row} * plan.kv_heads + head) * d;
        const size_t bytes = static_cast<size_t>(d) * sizeof(float);
        std::memcpy(at(arena, id, 0, slot % page_slots_), k.f32() + offset, bytes);
        std::memcpy(at(arena, id, 1, slot % page_slots_), v.f32() + offset, bytes);
      }
    }
  }

  Expected<std::unique_ptr<ops::Weight>> load_weight(const TensorView&) override { unused(); }
  int64_t least_weight_bytes(DType, const Shape&) const override { unused(); }
  void embed(std::span<const int32_t>, const ops::Weight&, const TensorView&) override { unused(); }
  void rms_norm(const TensorView&, const TensorView&, float, const TensorView&) override {
    unused();
  }
  void matmul(const TensorView&, const ops::Weight&, const TensorView&,
              const TensorView&) override {
    unused();
  }
  void add(const TensorView&, const TensorView&) override { unused(); }
  void swiglu(const TensorView&, const TensorView&, const TensorView&) override { unused(); }
  void rope(const TensorView&, const TensorView&, const TensorView&) override { unused(); }
  void gather_rows(const TensorView&, std::span<const int32_t>, const TensorView&) override {
    unused();
  }
  void attention(const TensorView&, const ops::AttentionParams&, const ops::AttentionPlan&,
                 const ops::KvArena&, const TensorView&) override {
    unused();
  }
  void to_host(const TensorView&, void*) override { unused(); }

  int64_t pages_zeroed = 0;

 private:
  [[noreturn]] static void unused() { check_failed("not a cache's business", __FILE__, __LINE__); }
  float* at(const ops::KvArena& arena, PageId id, int32_t kind, int32_t slot) const {
    return reinterpret_cast<float*>(arena.page(id)) +
           (int64_t{kind} * page_slots_ + slot) * arena.layout.head_dim;
  }
  int32_t page_slots_;
};

// How long the property test runs: --ops=N and --seed=N of the test binary.
struct Soak {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  int64_t operations = 20'000;
#else
  int64_t operations = 200'000;
#endif
  uint64_t seed = 1;
};
Soak& soak();

inline uint64_t mix(uint64_t x) {
  x ^= x >> 31;
  x *= 0x9e3779b97f4a7c15ull;
  x ^= x >> 29;
  return x * 0xbf58476d1ce4e5b9ull;
}

// hashes[i]: of the scope and tokens [0, i].
inline std::vector<uint64_t> prefix_hashes(const Scope& scope, const Tokens& tokens) {
  uint64_t h = 1;
  for (char c : scope) h = mix(h ^ static_cast<unsigned char>(c));
  std::vector<uint64_t> hashes;
  for (TokenId t : tokens) hashes.push_back(h = mix(h + static_cast<uint64_t>(t) + 0x51ull));
  return hashes;
}

// The key or value that the pretended model gives a token: exact in f32.
inline float kv_value(uint64_t prefix, int32_t list, int32_t kind, int32_t d) {
  return static_cast<float>(
      mix(prefix ^ mix(static_cast<uint64_t>((list * 2 + kind) * 64 + d + 1))) & 0x7fffffu);
}

// The pretended model's gate.
float gate_logit(uint64_t prefix, int32_t list);

struct Shape4 {
  int32_t page_slots = 4, layers = 2, kv_heads = 2, head_dim = 2;
  int64_t page_bytes() const { return int64_t{page_slots} * head_dim * 2 * int64_t{sizeof(float)}; }
  int64_t column_bytes() const { return page_bytes() * layers * kv_heads; }
};

class Rig {
 public:
  struct Live {
    Scope scope;
    Tokens tokens;
    std::vector<uint64_t> hashes;
    const Tier* tier = nullptr;  // null: ungated
    int64_t prompt = 0;
  };

  explicit Rig(int64_t columns, Shape4 shape = {}, int64_t max_columns = 0)
      : shape_(shape), backend(shape.page_slots) {
    KvCacheOptions options;
    options.layers = shape.layers;
    options.kv_heads = shape.kv_heads;
    options.head_dim = shape.head_dim;
    options.kv_type = DType::kF32;
    options.budget_bytes = columns * shape.column_bytes();
    options.max_budget_bytes = max_columns * shape.column_bytes();
    auto made = KvCache::create(backend, options, least_recently_used());
    CHECK(made.has_value());
    cache = std::move(*made);
  }

  SequenceId open(const Tokens& tokens, const Scope& scope = "m") {
    const SequenceId id = cache->open(scope, tokens);
    live[id] = {scope, tokens, prefix_hashes(scope, tokens)};
    check();
    return id;
  }
  SequenceId open_gated(const Tokens& tokens, const Tier& tier,
                        const std::vector<int64_t>& boundaries = {}, const Scope& scope = "g") {
    const SequenceId id = cache->open(scope, tokens, {.tier = &tier, .boundaries = boundaries});
    live[id] = {scope, tokens, prefix_hashes(scope, tokens), &tier, std::ssize(tokens)};
    check();
    return id;
  }
  SequenceId fork(SequenceId id) {
    const SequenceId fork = cache->fork(id);
    live[fork] = live.at(id);
    check();
    return fork;
  }
  void append(SequenceId id, TokenId token) {
    cache->append(id, token);
    Live& l = live.at(id);
    l.tokens.push_back(token);
    l.hashes = prefix_hashes(l.scope, l.tokens);
    check();
  }
  void close(SequenceId id) {
    cache->close(id);
    live.erase(id);
    check();
  }
  Progress progress(SequenceId id) const { return cache->progress(id); }
  int64_t computed(SequenceId id) const { return cache->progress(id).computed; }
  bool blocked(SequenceId id) const { return cache->progress(id).blocked; }
  int64_t held(const Tokens& tokens, const Scope& scope = "m") const {
    return cache->match(scope, tokens).held;
  }
  int64_t held_gated(const Tokens& tokens, const Scope& scope = "g") const {
    return cache->match(scope, tokens).held;
  }
  std::optional<int32_t> reserve(SequenceId id, int32_t n) {
    auto rows = cache->reserve(id, n);
    check();
    return rows;
  }

  // Plans, compares the pages of every path with what they must hold, computes, commits. Returns
  // the rows evaluated.
  int32_t run(Partition partition = Partition::kTwoPhase) {
    Step& step = cache->plan(partition);
    check_plan(step);
    compute(step);
    const int32_t rows = step.plan.rows;
    cache->commit();
    check();
    return rows;
  }
  // Steps until the sequence has nothing left to compute, alone; returns its rows.
  int32_t finish(SequenceId id, int32_t slice = 1000) {
    int32_t rows = 0;
    while (computed(id) < progress(id).tokens) {
      const auto took = reserve(id, slice);
      if (!took) {
        ADD_FAILURE() << "sequence " << id << " got no rows";
        return rows;
      }
      rows += *took;
      run();
    }
    return rows;
  }
  int32_t finish_open(const Tokens& tokens) { return finish(open(tokens)); }

  void check() const { cache->check_invariants(); }
  int64_t columns_held() const { return cache->stats().bytes_held / shape_.column_bytes(); }

  // Every row's segments cover its path without gap, the pages hold what the prefix demands.
  void check_plan(const Step& step);
  // Decides the gated rows, writes all keys and values, compares what gated rows see.
  void compute(Step& step);

  Shape4 shape_;
  PageBackend backend;
  std::unique_ptr<KvCache> cache;
  std::map<SequenceId, Live> live;

 private:
  void check_slots(const Live& l, const ops::KvPart& part, int64_t from, int64_t to) const;
  // Of each token [tokens][lists]: ops::keep_byte as it must be now, made anew from the tokens and
  // from which ranges the cache says were thinned how often.
  std::vector<std::vector<uint8_t>> decisions(const Live& l, int64_t end,
                                              const std::vector<KvCache::Thinned>& thinned) const;
  void check_gated(const Live& l, const Slice& slice, const Step& step, int32_t list,
                   const std::vector<std::vector<uint8_t>>& keep) const;
  void check_slot(const ops::KvPart& part, int32_t list, int64_t slot, uint64_t hash) const;
};

// 0, 1, 2, ... or from `first` on.
inline Tokens counting(int64_t n, TokenId first = 0) {
  Tokens tokens(static_cast<size_t>(n));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}
inline Tokens operator+(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace coppice::kv
