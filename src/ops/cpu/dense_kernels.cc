// The widest of each family is enough: SSE would only add code nobody can choose.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL)

#include "ops/cpu/dense_kernels.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/cpu/dense_kernels.cc"
#include <hwy/foreach_target.h>  // must come before highway.h

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace coppice::ops::cpu::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using F32 = hn::ScalableTag<float>;
using Vector = hn::Vec<F32>;
// Tails run the same operations on one lane, so an element's bits do not depend on where it falls.
using One = hn::CappedTag<float, 1>;

// 256-bit registers hold 6 x 2 accumulators, 512-bit ones 8 x 2 with room to spare.
constexpr int kMaxRows = HWY_TARGET == HWY_AVX2 ? 6 : 8;
constexpr int kPanelVectors = 4;
// Few rows: a whole panel at once, so that the weights are one sequential stream. More: half of it.
constexpr int kWideRows = 3;
// More rows than that are multiplied slice by slice: a slice of half a panel (16 KB in f32) stays
// in the first-level cache, a slice of x for a block of rows (96 KB) in the second.
template <class W>
constexpr int64_t kDepthSlice = std::is_same_v<W, bf16> ? 256 : 128;
constexpr int64_t kBlockRows = 96;

int64_t lanes() { return static_cast<int64_t>(hn::Lanes(F32())); }

// Vectors [0, V) of one depth of a panel.
template <int V>
HWY_INLINE void load_weights(const float* from, Vector (&to)[V]) {
  const F32 d;
  for (int v = 0; v < V; ++v) to[v] = hn::Load(d, from + v * lanes());
}

template <int V>
HWY_INLINE void load_weights(const bf16* from, Vector (&to)[V]) {
  const F32 d;
  const hn::Repartition<uint32_t, F32> words;
  const auto upper = hn::Set(words, 0xffff0000u);
  for (int v = 0; v < V; v += 2) {
    const auto pairs = hn::Load(words, reinterpret_cast<const uint32_t*>(from + v * lanes()));
    to[v] = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
    to[v + 1] = hn::BitCast(d, hn::And(pairs, upper));
  }
}

// A tile: R rows times V vectors of columns, over a slice of the depth.
template <class W>
struct Tile {
  const float* x;     // at the slice's first depth
  int64_t x_stride;   // between rows
  const W* weights;   // at the slice's first depth and the tile's first column
  int64_t depth;      // of the slice
  const float* bias;  // added at the end, or null
  float* out;
  int64_t out_stride;
  bool resume;  // go on from what out holds
};

// sums[r][v] take depth k of x and of the weights, two vectors of weights at a time: with three
// rows there are no registers for four.
template <int R, int V, class W>
HWY_INLINE void add_depth(const float* x, int64_t stride, const W* weights, Vector (&sums)[R][V]) {
  const F32 d;
  for (int pair = 0; pair < V; pair += 2) {
    Vector w[2];
    load_weights<2>(weights + pair * lanes(), w);
    for (int r = 0; r < R; ++r) {
      const Vector factor = hn::Set(d, x[r * stride]);
      for (int v = 0; v < 2; ++v) {
        sums[r][pair + v] = hn::MulAdd(factor, w[v], sums[r][pair + v]);
      }
    }
  }
}

// Few rows read weights as a stream: what comes this far behind is fetched, where the processor
// would only look ahead within a page.
constexpr int64_t kStreamAhead = 2048;

template <class W>
HWY_INLINE void fetch_ahead(const W* weights, int64_t count) {
  const auto* at = reinterpret_cast<const char*>(weights) + kStreamAhead;
  const int64_t bytes = count * static_cast<int64_t>(sizeof(W));
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 3);
}

template <int R, int V, bool kPacked, class W>
HWY_INLINE void multiply(const Tile<W>& tile) {
  const F32 d;
  Vector sums[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      sums[r][v] =
          tile.resume ? hn::LoadU(d, tile.out + r * tile.out_stride + v * lanes()) : hn::Zero(d);
    }
  }
  const int64_t stride = kPacked ? kDepthSlice<W> : tile.x_stride, step = kPanelVectors * lanes();
  const W* weights = tile.weights;
  for (int64_t k = 0; k < tile.depth; ++k, weights += step) {
    if constexpr (!kPacked) fetch_ahead(weights, step);
    add_depth<R, V>(tile.x + k, stride, weights, sums);
  }
  for (int v = 0; v < V; ++v) {
    for (int r = 0; r < R; ++r) {
      Vector sum = sums[r][v];
      if (tile.bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, tile.bias + v * lanes()));
      hn::StoreU(sum, d, tile.out + r * tile.out_stride + v * lanes());
    }
  }
}

// The same for a row count known only now: 1 to R.
template <int R, int V, bool kPacked, class W>
HWY_INLINE void multiply_rows(int64_t rows, const Tile<W>& tile) {
  if constexpr (R > 1) {
    if (rows < R) return multiply_rows<R - 1, V, kPacked>(rows, tile);
  }
  multiply<R, V, kPacked>(tile);
}

// The slice that comes next, fetched a little before every tile: while the first tile reads a slice
// the others would leave the memory idle.
struct Prefetch {
  const char* at;
  int64_t bytes_per_tile;

  void advance() {
    for (int64_t i = 0; i < bytes_per_tile; i += 64) __builtin_prefetch(at + i, 0, 2);
    at += bytes_per_tile;
  }
};

// All rows times V vectors of columns, in tiles of nearly equal height, at most R.
template <int R, int V, bool kPacked, class W>
HWY_INLINE void multiply_all(int64_t rows_left, Tile<W> tile, Prefetch& next) {
  for (int64_t tiles = (rows_left + R - 1) / R; tiles > 0; --tiles) {
    const int64_t rows = rows_left / tiles;
    next.advance();
    multiply_rows<R, V, kPacked>(rows, tile);
    rows_left -= rows;
    tile.x += rows * tile.x_stride;
    tile.out += rows * tile.out_stride;
  }
}

// One whole panel over a slice of the depth; `next` is the slice after it.
template <class W>
void multiply_panel(int64_t rows, Tile<W> tile, const W* next) {
  Prefetch prefetch{reinterpret_cast<const char*>(next), 0};
  if (rows <= kWideRows) return multiply_all<kWideRows, 4, false>(rows, tile, prefetch);
  const int64_t bytes = tile.depth * kPanelVectors * lanes() * static_cast<int64_t>(sizeof(W));
  const int64_t tiles = 2 * ((rows + kMaxRows - 1) / kMaxRows);
  prefetch.bytes_per_tile = (bytes / tiles + 63) / 64 * 64;
  multiply_all<kMaxRows, 2, true>(rows, tile, prefetch);
  tile.weights += 2 * lanes();
  tile.out += 2 * lanes();
  if (tile.bias != nullptr) tile.bias += 2 * lanes();
  multiply_all<kMaxRows, 2, true>(rows, tile, prefetch);
}

// Where a panel of which only `columns` exist is multiplied as a whole one.
struct PartialPanel {
  static constexpr size_t kMost = kPanelVectors * hn::MaxLanes(F32());
  HWY_ALIGN float sums[kBlockRows * kMost];
  HWY_ALIGN float bias[kMost];

  void copy_out(int64_t rows, int64_t columns, float* out, int64_t out_stride) const {
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(sums + r * kPanelVectors * lanes(), columns, out + r * out_stride);
    }
  }
};

// All panels over depths [k, k + depth), x pointing at row 0, depth k.
template <class W>
void multiply_slice(const ProductBlock& block, const float* x, int64_t x_stride, int64_t k,
                    int64_t depth, PartialPanel& partial) {
  const int64_t panel = kPanelVectors * lanes();
  const bool last = k + depth == block.depth;
  const W* weights = static_cast<const W*>(block.weights) + k * panel;
  for (int64_t c = 0; c < block.columns; c += panel, weights += block.depth * panel) {
    const int64_t columns = std::min(panel, block.columns - c);
    const float* bias = last && block.bias != nullptr ? block.bias + c : nullptr;
    if (columns == panel) {
      multiply_panel<W>(block.rows,
                        {x, x_stride, weights, depth, bias, block.out + c, block.out_stride, k > 0},
                        weights + block.depth * panel);
      continue;
    }
    if (bias != nullptr) {
      std::fill_n(std::copy_n(bias, columns, partial.bias), panel - columns, 0.0f);
      bias = partial.bias;
    }
    multiply_panel<W>(block.rows, {x, x_stride, weights, depth, bias, partial.sums, panel, k > 0},
                      weights);
    if (last) partial.copy_out(block.rows, columns, block.out + c, block.out_stride);
  }
}

// At most kBlockRows rows. Many rows work on one slice of the depth at a time, whose x is first
// copied together: rows a power of two apart would crowd into a few sets of the cache.
template <class W>
void multiply_block(const ProductBlock& block) {
  PartialPanel partial;
  if (block.rows <= kWideRows) {
    return multiply_slice<W>(block, block.x, block.depth, 0, block.depth, partial);
  }
  HWY_ALIGN float x[kBlockRows * kDepthSlice<W>];
  int64_t k = 0;
  do {  // once even at depth 0: the sums are zero
    const int64_t depth = std::min(kDepthSlice<W>, block.depth - k);
    for (int64_t r = 0; r < block.rows; ++r) {
      std::copy_n(block.x + r * block.depth + k, depth, x + r * kDepthSlice<W>);
    }
    multiply_slice<W>(block, x, kDepthSlice<W>, k, depth, partial);
    k += depth;
  } while (k < block.depth);
}

template <class W>
void product(ProductBlock block) {
  for (int64_t left = block.rows; left > 0; left -= block.rows) {
    block.rows = std::min(left, kBlockRows);
    multiply_block<W>(block);
    block.x += block.rows * block.depth;
    block.out += block.rows * block.out_stride;
  }
}

void product_f32(const ProductBlock& block) { product<float>(block); }
void product_bf16(const ProductBlock& block) { product<bf16>(block); }

// body(tag, i) for every vector of [0, n), then for every single element left.
template <class Body>
HWY_INLINE void for_each_vector(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + lanes() <= n; i += lanes()) body(F32(), i);
  for (; i < n; ++i) body(One(), i);
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* out) {
  const F32 d;
  Vector squares = hn::Zero(d);
  int64_t i = 0;
  for (; i + lanes() <= n; i += lanes()) {
    const Vector v = hn::LoadU(d, x + i);
    squares = hn::MulAdd(v, v, squares);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, squares));
  for (; i < n; ++i) sum += x[i] * x[i];
  const float inverse = 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
  for_each_vector(n, [&](auto tag, int64_t at) HWY_ATTR {
    const auto scaled = hn::Mul(hn::LoadU(tag, x + at), hn::Set(tag, inverse));
    hn::StoreU(hn::Mul(scaled, hn::LoadU(tag, weight + at)), tag, out + at);
  });
}

void add(float* x, const float* y, int64_t n) {
  for_each_vector(n, [&](auto tag, int64_t at) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(tag, x + at), hn::LoadU(tag, y + at)), tag, x + at);
  });
}

void swiglu(const float* gate, const float* up, int64_t n, float* out) {
  for_each_vector(n, [&](auto tag, int64_t at) HWY_ATTR {
    const auto one = hn::Set(tag, 1.0f);
    const auto g = hn::LoadU(tag, gate + at);
    // At 104, the end of Exp's range, it is infinite already.
    const auto decay = hn::Exp(tag, hn::Min(hn::Neg(g), hn::Set(tag, 104.0f)));
    const auto silu = hn::Div(g, hn::Add(one, decay));
    hn::StoreU(hn::Mul(silu, hn::LoadU(tag, up + at)), tag, out + at);
  });
}

void rope(float* x, const float* cos, const float* sin, int64_t half) {
  for_each_vector(half, [&](auto tag, int64_t at) HWY_ATTR {
    const auto c = hn::LoadU(tag, cos + at), s = hn::LoadU(tag, sin + at);
    const auto low = hn::LoadU(tag, x + at), high = hn::LoadU(tag, x + half + at);
    hn::StoreU(hn::NegMulAdd(high, s, hn::Mul(low, c)), tag, x + at);
    hn::StoreU(hn::MulAdd(low, s, hn::Mul(high, c)), tag, x + half + at);
  });
}

}  // namespace

const DenseKernels* kernels() {
  static const DenseKernels table{hwy::TargetName(HWY_TARGET),
                                  static_cast<int32_t>(kPanelVectors * lanes()),
                                  product_f32,
                                  product_bf16,
                                  rms_norm,
                                  add,
                                  swiglu,
                                  rope};
  return &table;
}

}  // namespace coppice::ops::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "base/check.h"

namespace coppice::ops::cpu {

const DenseKernels& dense_kernels(Isa isa) {
  const DenseKernels* (*const table)() =
      isa == Isa::kAvx2 ? HWY_CHOOSE_AVX2(kernels) : HWY_CHOOSE_AVX3(kernels);
  CHECK(table != nullptr);
  return *table();
}

}  // namespace coppice::ops::cpu
#endif  // HWY_ONCE
