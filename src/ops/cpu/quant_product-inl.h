// The product with block-quantised weights over one instruction set's vectors (quant_kernels.h has
// the arithmetic and the layout). Included inside the target region of quant_*.cc, once each, where
// `Ops` is defined.
//
// Why it is exact in 16 bits: an unsigned code of b bits times a signed byte, added in pairs, is at
// most 2 (2^b - 1) 127; as many such pairs as kPairs fit before they are widened. Signed weights
// (Q8_0) lend their sign to the activation, so that one factor is unsigned.
//
// A panel passes slice by slice of its depth: the slice's weights stay in the first-level cache
// while all tiles of rows use them, and the next slice is fetched from between their blocks.

template <DType T>
struct Traits {
  static constexpr bool kSuper = T == DType::kQ4_K || T == DType::kQ5_K || T == DType::kQ6_K;
  static constexpr bool kMins = T == DType::kQ4_K || T == DType::kQ5_K;
  static constexpr int kBlock = kSuper ? 256 : 32;
  static constexpr int kGroup = T == DType::kQ6_K ? 16 : 32;
  static constexpr int kPairs = T == DType::kQ8_0   ? 1
                                : T == DType::kQ6_K ? 2
                                : T == DType::kQ5_K ? 4
                                                    : 8;
  // Vectors of bits above the nibbles in front of a chunk's codes, per column vector.
  static constexpr int kUpper = T == DType::kQ5_K ? 1 : T == DType::kQ6_K ? 2 : 0;
  static constexpr int kCodes = T == DType::kQ8_0 ? 8 : 4;
};

constexpr int kVectors = 2;
using Int = Ops::Int;
using Float = Ops::Float;
constexpr int kLanes = Ops::kLanes;
constexpr int kPanel = kVectors * kLanes;
constexpr int kVectorBytes = 4 * kLanes;
constexpr int64_t kSliceDepth = 512;

// f(0), ..., f(N - 1) with indices known to the compiler: arrays that only they index can live in
// registers.
template <int N, class F>
INLINE void unrolled(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) INLINE_LAMBDA {
    (f(std::integral_constant<int, I>()), ...);
  }
  (std::make_integer_sequence<int, N>());
}

// Word i of row r of a record's part, in every lane.
template <int R>
INLINE Int word(const std::byte* at, int i, int r) {
  return Ops::broadcast(at + (i * R + r) * 4);
}

// --- codes

// Where step k of a chunk has its depths: nibble vector j, its low or its high half.
template <DType T>
struct Step {
  static constexpr int vector(int k) { return T == DType::kQ6_K ? k % 4 : k / 2; }
  static constexpr int half(int k) { return T == DType::kQ6_K ? k / 4 : k % 2; }
  static constexpr int depth(int k) {
    return T == DType::kQ8_0 ? 4 * k : 16 * half(k) + 4 * vector(k);
  }
};

// Bits kBit and up of every byte, moved to kTo and up; what crosses bytes is for the caller to
// mask.
template <int kBit, int kTo>
INLINE Int moved(Int bits) {
  if constexpr (kBit > kTo) return Ops::template right<kBit - kTo>(bits);
  if constexpr (kBit < kTo) return Ops::template left<kTo - kBit>(bits);
  return bits;
}

// The unsigned codes of step K for column vector v, from the chunk of an image.
template <DType T, int K>
INLINE Int unsigned_codes(const std::byte* chunk, int v) {
  using S = Step<T>;
  const std::byte* nibbles = chunk + Traits<T>::kUpper * kVectors * kVectorBytes;
  Int code = Ops::load(nibbles + (S::vector(K) * kVectors + v) * kVectorBytes);
  if constexpr (S::half(K) == 1) code = Ops::template right<4>(code);
  code = Ops::bit_and(code, Ops::set32(0x0f0f0f0f));
  if constexpr (T == DType::kQ5_K) {
    const Int bits = Ops::load(chunk + v * kVectorBytes);
    code = Ops::bit_or(code, Ops::bit_and(moved<S::depth(K) / 4, 4>(bits), Ops::set32(0x10101010)));
  }
  if constexpr (T == DType::kQ6_K) {
    const Int bits = Ops::load(chunk + (S::half(K) * kVectors + v) * kVectorBytes);
    code =
        Ops::bit_or(code, Ops::bit_and(moved<2 * S::vector(K), 4>(bits), Ops::set32(0x30303030)));
  }
  return code;
}

template <DType T>
constexpr int64_t chunk_bytes() {
  return (Traits<T>::kUpper + Traits<T>::kCodes) * kVectors * kVectorBytes;
}

// A chunk whose codes were unpacked before: a byte each, step after step.
constexpr int64_t kReadyBytes = 8 * kVectors * kVectorBytes;

template <DType T>
INLINE void unpack_chunk(const std::byte* chunk, std::byte* to) {
  unrolled<8>([&](auto k) INLINE_LAMBDA {
    for (int v = 0; v < kVectors; ++v) {
      Ops::store(unsigned_codes<T, k>(chunk, v), to + (k * kVectors + v) * kVectorBytes);
    }
  });
}

// Few tiles read weights as a stream: what comes this far behind is fetched, where the processor
// would only look ahead within a page.
constexpr int64_t kStreamAhead = 2048;

template <int64_t Bytes>
INLINE void fetch_ahead(const std::byte* at) {
  for (int64_t i = 0; i < Bytes; i += 64) __builtin_prefetch(at + kStreamAhead + i, 0, 3);
}

// One chunk times R rows: total[r][v] += scale * (sum of products), the scales as 16-bit pairs of
// equal halves. x: the words of the chunk's depths.
template <DType T, int R, bool Ready, bool Fresh>
struct Chunk {
  const std::byte* codes;
  const std::byte* x;
  Int pairs[R][kVectors];  // 16-bit sums

  template <int K>
  INLINE void step(const Int (&scale)[2][kVectors], Int (&total)[R][kVectors]) {
    Int code[kVectors];
    unrolled<kVectors>([&](auto v) INLINE_LAMBDA {
      if constexpr (Ready || T == DType::kQ8_0) {
        code[v] = Ops::load(codes + (K * kVectors + v) * kVectorBytes);
      } else {
        code[v] = unsigned_codes<T, K>(codes, v);
      }
    });
    constexpr bool kFirst = K % Traits<T>::kPairs == 0;
    constexpr bool kLast = (K + 1) % Traits<T>::kPairs == 0;
    constexpr int kScale = T == DType::kQ6_K ? Step<T>::half(K) : 0;
    unrolled<R>([&](auto r) INLINE_LAMBDA {
      const Int a = word<R>(x, Step<T>::depth(K) / 4, r);
      unrolled<kVectors>([&](auto v) INLINE_LAMBDA {
        Int product;
        if constexpr (T == DType::kQ8_0) {
          product = Ops::multiply_pairs(Ops::magnitude(code[v]), Ops::with_sign_of(a, code[v]));
        } else {
          product = Ops::multiply_pairs(code[v], a);
        }
        pairs[r][v] = kFirst ? product : Ops::add16(pairs[r][v], product);
        if constexpr (kLast) {
          const Int sum = Ops::dot16(pairs[r][v], scale[kScale][v]);
          constexpr bool kFreshSum = Fresh && K + 1 == Traits<T>::kPairs;
          total[r][v] = kFreshSum ? sum : Ops::add32(total[r][v], sum);
        }
      });
    });
  }

  INLINE void run(const Int (&scale)[2][kVectors], Int (&total)[R][kVectors]) {
    if constexpr (!Ready) fetch_ahead<chunk_bytes<T>()>(codes);
    unrolled<8>([&](auto k) INLINE_LAMBDA { step<k>(scale, total); });
  }
};

// --- tiles

// Memory that will be read soon, fetched a few bytes at a time.
struct Ahead {
  const std::byte* at;
  const std::byte* until;
  int64_t share;

  INLINE void fetch() {
    if (share == 0) return;
    until += share;
    for (; at < until; at += 64) __builtin_prefetch(at, 0, 2);
  }
};

// R rows times one panel, block after block.
template <DType T, int R, bool Ready>
struct Tile {
  const std::byte* x;        // the next record
  const std::byte* weights;  // the next image
  const std::byte* ready;    // its unpacked chunks
  float* sums;               // [R][kPanel]

  // In an image:
  static constexpr int64_t kGroups = (Traits<T>::kMins ? 4 : 2) * kPanel;
  static constexpr int kPairsOfGroups = Traits<T>::kSuper ? 256 / Traits<T>::kGroup / 2 : 0;
  static constexpr int64_t kPairBytes = 2 * kPanel;
  static constexpr int64_t kMinima = kGroups + kPairsOfGroups * kPairBytes;
  static constexpr int64_t kChunks = kMinima + (Traits<T>::kMins ? kMinima - kGroups : 0);
  static constexpr int64_t kImage = kChunks + Traits<T>::kBlock / 32 * chunk_bytes<T>();
  // In a record:
  static constexpr int64_t kSums = 4 * R;
  static constexpr int64_t kCodes = kSums + (Traits<T>::kSuper ? 12 : 1) * 4 * R;
  static constexpr int64_t kRecord = kCodes + Traits<T>::kBlock * R;

  static INLINE Int group_pair(const std::byte* at, int p, int v) {
    return Ops::template load_pairs<T == DType::kQ6_K>(at + p * kPairBytes + v * 2 * kLanes);
  }

  // of[r][v] = sum over groups of (scale or minimum) * (sum of the row's codes).
  INLINE void weigh_sums(const std::byte* groups, Int (&of)[R][kVectors]) const {
    const std::byte* words = x + kSums + (T == DType::kQ6_K ? 4 : 0) * 4 * R;
    unrolled<kPairsOfGroups>([&](auto p) INLINE_LAMBDA {
      Int pair[kVectors];
      for (int v = 0; v < kVectors; ++v) pair[v] = group_pair(groups, p, v);
      unrolled<R>([&](auto r) INLINE_LAMBDA {
        const Int both = word<R>(words, p, r);
        unrolled<kVectors>([&](auto v) INLINE_LAMBDA {
          const Int sum = Ops::dot16(both, pair[v]);
          of[r][v] = p == 0 ? sum : Ops::add32(of[r][v], sum);
        });
      });
    });
  }

  // sums += factor * total, factor = (scale of the column) * (scale of the row).
  template <bool Negative>
  INLINE void add_to_sums(const Int (&total)[R][kVectors], const std::byte* scales) const {
    unrolled<kVectors>([&](auto v) INLINE_LAMBDA {
      const Float scale = Ops::load_halves(scales + v * kLanes * 2);
      unrolled<R>([&](auto r) INLINE_LAMBDA {
        const Float factor = Ops::mul(scale, Ops::broadcast_float(x + 4 * r));
        float* sum = sums + r * kPanel + v * kLanes;
        const Float addend = Ops::load_floats(sum), value = Ops::convert(total[r][v]);
        Ops::store_floats(
            Negative ? Ops::negative_fma(value, factor, addend) : Ops::fma(value, factor, addend),
            sum);
      });
    });
  }

  INLINE void small_block() {
    const Int one = Ops::set32(0x00010001);
    const Int ones[2][kVectors] = {{one, one}, {one, one}};
    Int total[R][kVectors];
    Chunk<T, R, Ready, true> chunk{Ready ? ready : weights + kChunks, x + kCodes, {}};
    chunk.run(ones, total);
    if constexpr (T == DType::kQ4_0) {  // codes are 8 too large
      unrolled<R>([&](auto r) INLINE_LAMBDA {
        const Int offset = Ops::template left<3>(word<R>(x + kSums, 0, r));
        for (int v = 0; v < kVectors; ++v) total[r][v] = Ops::sub32(total[r][v], offset);
      });
    }
    add_to_sums<false>(total, weights);
  }

  INLINE void super_block() {
    Int total[R][kVectors];
    if constexpr (T == DType::kQ6_K) {  // codes are 32 too large
      weigh_sums(weights + kGroups, total);
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          total[r][v] = Ops::sub32(Ops::zero(), Ops::template left<5>(total[r][v]));
        }
      }
    } else {
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kVectors; ++v) total[r][v] = Ops::zero();
      }
    }
    const std::byte* codes = Ready ? ready : weights + kChunks;
    constexpr int64_t kChunkBytes = Ready ? kReadyBytes : chunk_bytes<T>();
    const std::byte* words = x + kCodes;
    for (int p = 0; p < kPairsOfGroups; ++p) {
      Int low[kVectors], high[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        const Int pair = group_pair(weights + kGroups, p, v);
        low[v] = Ops::low_twice(pair);
        high[v] = Ops::high_twice(pair);
      }
      if constexpr (T == DType::kQ6_K) {
        const Int scale[2][kVectors] = {{low[0], low[1]}, {high[0], high[1]}};
        Chunk<T, R, Ready, false>{codes, words, {}}.run(scale, total);
      } else {
        const Int first[2][kVectors] = {{low[0], low[1]}, {low[0], low[1]}};
        const Int second[2][kVectors] = {{high[0], high[1]}, {high[0], high[1]}};
        Chunk<T, R, Ready, false>{codes, words, {}}.run(first, total);
        codes += kChunkBytes;
        words += 32 * R;
        Chunk<T, R, Ready, false>{codes, words, {}}.run(second, total);
      }
      codes += kChunkBytes;
      words += 32 * R;
    }
    add_to_sums<false>(total, weights);
    if constexpr (Traits<T>::kMins) {
      weigh_sums(weights + kMinima, total);
      add_to_sums<true>(total, weights + 2 * kPanel);
    }
  }

  INLINE void run(int64_t blocks, Ahead& ahead) {
    for (; blocks > 0; --blocks) {
      ahead.fetch();
      if constexpr (Traits<T>::kSuper) {
        super_block();
      } else {
        small_block();
      }
      x += kRecord;
      weights += kImage;
      ready += Traits<T>::kBlock / 32 * kReadyBytes;
    }
  }
};

// --- slices

// Blocks [first, first + count) of one panel, and all rows' sums.
struct Slice {
  const std::byte* weights;  // the first block's image
  const std::byte* ready;    // unpacked chunks, where they are wanted
  int64_t first, count;
  float* sums;  // [rows][kPanel]
};

template <DType T, int R, bool Ready>
void run_tile(const QuantBlockProduct& p, int64_t row, const Slice& slice, Ahead& ahead) {
  using TileOfType = Tile<T, R, Ready>;
  const std::byte* x = p.x.tile(p.first_row + row) + slice.first * TileOfType::kRecord;
  TileOfType tile{x, slice.weights, slice.ready, slice.sums + row * kPanel};
  Ahead own = ahead;
  tile.run(slice.count, own);
  ahead = own;
}

template <DType T, bool Ready>
void run_slice(const QuantBlockProduct& p, const Slice& slice) {
  // Few heights: every one is a long piece of code for each type.
  const int64_t tiles = p.rows / 4 + p.rows / 2 % 2 + p.rows % 2;
  constexpr int64_t kImage = Tile<T, 1, Ready>::kImage;
  const std::byte* next = slice.weights + slice.count * kImage;
  Ahead ahead{next, next, !Ready ? 0 : kImage / tiles + 1};
  int64_t row = 0;
  for (; row + 4 <= p.rows; row += 4) run_tile<T, 4, Ready>(p, row, slice, ahead);
  for (; row + 2 <= p.rows; row += 2) run_tile<T, 2, Ready>(p, row, slice, ahead);
  if (row < p.rows) run_tile<T, 1, Ready>(p, row, slice, ahead);
}

template <DType T>
void unpack_slice(const Slice& slice, std::byte* to) {
  using TileOfType = Tile<T, 1, true>;
  for (int64_t b = 0; b < slice.count; ++b) {
    const std::byte* chunk = slice.weights + b * TileOfType::kImage + TileOfType::kChunks;
    for (int c = 0; c < Traits<T>::kBlock / 32; ++c, chunk += chunk_bytes<T>(), to += kReadyBytes) {
      unpack_chunk<T>(chunk, to);
    }
  }
}

// From here on unpacking a slice once is cheaper than in every tile.
constexpr int64_t kReadyRows = 12;

template <DType T>
void run_product(const QuantBlockProduct& p) {
  alignas(64) float sums[kQuantRowsTogether * kPanel];
  alignas(64) std::byte ready[kSliceDepth / 32 * kReadyBytes];
  constexpr int64_t kBlocks = kSliceDepth / Traits<T>::kBlock;
  const std::byte* weights = p.weights;
  for (int64_t column = 0; column < p.columns; column += kPanel) {
    std::fill_n(sums, p.rows * kPanel, 0.0f);
    for (int64_t b = 0; b < p.x.blocks(); b += kBlocks) {
      const Slice slice{weights, ready, b, std::min(kBlocks, p.x.blocks() - b), sums};
      if (T != DType::kQ8_0 && p.rows >= kReadyRows) {
        unpack_slice<T>(slice, ready);
        run_slice<T, T != DType::kQ8_0>(p, slice);
      } else {
        run_slice<T, false>(p, slice);
      }
      weights += slice.count * Tile<T, 1, false>::kImage;
    }
    const int64_t columns = std::min<int64_t>(kPanel, p.columns - column);
    for (int64_t r = 0; r < p.rows; ++r) {
      const float* from = sums + r * kPanel;
      float* to = p.out + r * p.out_stride + column;
      for (int64_t c = 0; c < columns; ++c) {
        to[c] = p.bias != nullptr ? from[c] + p.bias[column + c] : from[c];
      }
    }
  }
}

void product(DType type, const QuantBlockProduct& p) {
  switch (type) {
    case DType::kQ8_0:
      return run_product<DType::kQ8_0>(p);
    case DType::kQ4_0:
      return run_product<DType::kQ4_0>(p);
    case DType::kQ4_K:
      return run_product<DType::kQ4_K>(p);
    case DType::kQ5_K:
      return run_product<DType::kQ5_K>(p);
    default:
      return run_product<DType::kQ6_K>(p);
  }
}
