// The product with block-quantised weights over one instruction set's vectors (quant_kernels.h has
// the arithmetic and the layout). Included inside the target region of quant_*.cc, once each, where
// `Ops` is defined.
//
// Why it is exact in 16 bits: an unsigned code of b bits times a signed byte, added in pairs, is at
// most 2 (2^b - 1) 127; as many such pairs as kPairs fit before they are widened. Signed weights
// (Q8_0) lend their sign to the activation, so that one factor is unsigned.

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

// f(0), ..., f(N - 1) with indices known to the compiler: arrays that only they index can live in
// registers.
template <int N, class F>
INLINE void unrolled(const F& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) INLINE_LAMBDA {
    (f(std::integral_constant<int, I>()), ...);
  }
  (std::make_integer_sequence<int, N>());
}

// Four consecutive depths of one row in every lane.
INLINE Int activations(const int8_t* at) {
  int32_t word;
  std::memcpy(&word, at, sizeof(word));
  return Ops::set32(word);
}

// Where step k of a chunk has its depths: nibble vector j, its low or its high half.
template <DType T>
struct Step {
  static constexpr int vector(int k) { return T == DType::kQ6_K ? k % 4 : k / 2; }
  static constexpr int half(int k) { return T == DType::kQ6_K ? k / 4 : k % 2; }
  static constexpr int depth(int k) {
    return T == DType::kQ8_0 ? 4 * k : 16 * half(k) + 4 * vector(k);
  }
};

// The unsigned codes of step k for column vector v.
template <DType T, int K>
INLINE Int unsigned_codes(const std::byte* upper, const std::byte* codes, int v) {
  using S = Step<T>;
  Int code = Ops::load(codes + (S::vector(K) * kVectors + v) * kVectorBytes);
  if constexpr (S::half(K) == 1) code = Ops::template right<4>(code);
  code = Ops::bit_and(code, Ops::set32(0x0f0f0f0f));
  if constexpr (T == DType::kQ5_K) {
    constexpr int kBit = S::depth(K) / 4;
    const Int bits = Ops::load(upper + v * kVectorBytes);
    const Int moved = kBit <= 4 ? Ops::template left<(kBit <= 4 ? 4 - kBit : 0)>(bits)
                                : Ops::template right<(kBit > 4 ? kBit - 4 : 0)>(bits);
    code = Ops::bit_or(code, Ops::bit_and(moved, Ops::set32(0x10101010)));
  }
  if constexpr (T == DType::kQ6_K) {
    constexpr int kBit = 2 * S::vector(K);
    const Int bits = Ops::load(upper + (S::half(K) * kVectors + v) * kVectorBytes);
    const Int moved = kBit <= 4 ? Ops::template left<(kBit <= 4 ? 4 - kBit : 0)>(bits)
                                : Ops::template right<(kBit > 4 ? kBit - 4 : 0)>(bits);
    code = Ops::bit_or(code, Ops::bit_and(moved, Ops::set32(0x30303030)));
  }
  return code;
}

// One chunk: total[r][v] += scale * (sum of products), the scales as 16-bit pairs of equal halves.
template <DType T, int R>
struct Chunk {
  const std::byte* upper;
  const std::byte* codes;
  const int8_t* x;  // row 0 at the chunk's first depth
  int64_t x_stride;
  Int pairs[R][kVectors];  // 16-bit sums

  template <int K>
  INLINE void step(const Int (&scale)[2][kVectors], Int (&total)[R][kVectors]) {
    Int code[kVectors];
    unrolled<kVectors>([&](auto v) INLINE_LAMBDA {
      if constexpr (T == DType::kQ8_0) {
        code[v] = Ops::load(codes + (K * kVectors + v) * kVectorBytes);
      } else {
        code[v] = unsigned_codes<T, K>(upper, codes, v);
      }
    });
    constexpr bool kFirst = K % Traits<T>::kPairs == 0;
    constexpr bool kLast = (K + 1) % Traits<T>::kPairs == 0;
    constexpr int kScale = T == DType::kQ6_K ? Step<T>::half(K) : 0;
    unrolled<R>([&](auto r) INLINE_LAMBDA {
      const Int a = activations(x + r * x_stride + Step<T>::depth(K));
      unrolled<kVectors>([&](auto v) INLINE_LAMBDA {
        Int product;
        if constexpr (T == DType::kQ8_0) {
          product = Ops::multiply_pairs(Ops::magnitude(code[v]), Ops::with_sign_of(a, code[v]));
        } else {
          product = Ops::multiply_pairs(code[v], a);
        }
        pairs[r][v] = kFirst ? product : Ops::add16(pairs[r][v], product);
        if constexpr (kLast) {
          total[r][v] = Ops::add32(total[r][v], Ops::dot16(pairs[r][v], scale[kScale][v]));
        }
      });
    });
  }

  template <int... K>
  INLINE void steps(const Int (&scale)[2][kVectors], Int (&total)[R][kVectors],
                    std::integer_sequence<int, K...>) {
    (step<K>(scale, total), ...);
  }
};

template <DType T>
constexpr int64_t chunk_bytes() {
  return (Traits<T>::kUpper + Traits<T>::kCodes) * kVectors * kVectorBytes;
}

template <DType T, int R>
INLINE void add_chunk(const std::byte* at, const int8_t* x, int64_t x_stride,
                      const Int (&scale)[2][kVectors], Int (&total)[R][kVectors]) {
  Chunk<T, R> chunk;
  chunk.upper = at;
  chunk.codes = at + Traits<T>::kUpper * kVectors * kVectorBytes;
  chunk.x = x;
  chunk.x_stride = x_stride;
  chunk.steps(scale, total, std::make_integer_sequence<int, 8>());
}

// A tile: R rows times one panel.
template <DType T, int R>
struct Tile {
  const QuantRows& x;
  int64_t row;
  const std::byte* weights;
  float sums[R][kPanel];

  INLINE const int8_t* codes(int64_t depth) const { return x.codes + row * x.depth + depth; }

  INLINE void finish(int64_t b, const Int (&total)[R][kVectors], const Int (&least)[R][kVectors],
                     const std::byte* image) {
    // The sums stay in memory: in registers they would push the 16-bit sums out.
    float* sums_of_row = sums[0];
    asm("" : "+r"(sums_of_row) : : "memory");
    for (int v = 0; v < kVectors; ++v) {
      const Float scale = Ops::load_halves(image + v * kLanes * 2);
      Float minimum = scale;
      if constexpr (Traits<T>::kMins) {
        minimum = Ops::load_halves(image + (kPanel + v * kLanes) * 2);
      }
      for (int r = 0; r < R; ++r) {
        const Float da = Ops::set(x.scales[(row + r) * x.blocks + b]);
        float* sum = sums_of_row + r * kPanel + v * kLanes;
        Float acc = Ops::fma(Ops::convert(total[r][v]), Ops::mul(scale, da), Ops::load_floats(sum));
        if constexpr (Traits<T>::kMins) {
          acc = Ops::negative_fma(Ops::convert(least[r][v]), Ops::mul(minimum, da), acc);
        }
        Ops::store_floats(acc, sum);
      }
    }
  }

  INLINE void block(int64_t b) {
    constexpr int64_t kImage = (Traits<T>::kMins ? 4 : 2) * kPanel;
    Int total[R][kVectors], least[R][kVectors];
    for (int r = 0; r < R; ++r) {
      for (int v = 0; v < kVectors; ++v) total[r][v] = least[r][v] = Ops::zero();
    }
    const std::byte* at = weights + kImage;
    if constexpr (!Traits<T>::kSuper) {
      const Int one = Ops::set32(0x00010001);
      const Int ones[2][kVectors] = {{one, one}, {one, one}};
      add_chunk<T, R>(at, codes(b * 32), x.depth, ones, total);
      if constexpr (T == DType::kQ4_0) {
        for (int r = 0; r < R; ++r) {
          const Int offset = Ops::set32(-8 * x.sums[(row + r) * x.groups + b]);
          for (int v = 0; v < kVectors; ++v) total[r][v] = Ops::add32(total[r][v], offset);
        }
      }
      finish(b, total, least, weights);
      weights = at + chunk_bytes<T>();
      return;
    }
    constexpr int kPairsOfGroups = 256 / Traits<T>::kGroup / 2;
    constexpr int64_t kPairBytes = 2 * kPanel;
    const std::byte* minima = at + kPairsOfGroups * kPairBytes;
    const std::byte* chunks = minima + (Traits<T>::kMins ? kPairsOfGroups * kPairBytes : 0);
    for (int p = 0; p < kPairsOfGroups; ++p) {
      Int pair[kVectors], scale[2][kVectors];
      for (int v = 0; v < kVectors; ++v) {
        pair[v] = Ops::template load_pairs<T == DType::kQ6_K>(at + p * kPairBytes + v * 2 * kLanes);
        scale[0][v] = Ops::low_twice(pair[v]);
        scale[1][v] = Ops::high_twice(pair[v]);
      }
      const int64_t depth = b * 256 + p * 2 * Traits<T>::kGroup;
      for (int r = 0; r < R; ++r) {
        const Int sums_of_x = activations(reinterpret_cast<const int8_t*>(
            x.sums + (row + r) * x.groups + (b * kPairsOfGroups + p) * 2));
        for (int v = 0; v < kVectors; ++v) {
          Int with = pair[v];
          if constexpr (Traits<T>::kMins) {
            with = Ops::template load_pairs<false>(minima + p * kPairBytes + v * 2 * kLanes);
          }
          least[r][v] = Ops::add32(least[r][v], Ops::dot16(sums_of_x, with));
        }
      }
      if constexpr (T == DType::kQ6_K) {
        add_chunk<T, R>(chunks, codes(depth), x.depth, scale, total);
        chunks += chunk_bytes<T>();
      } else {
        const Int second[2][kVectors] = {{scale[1][0], scale[1][1]}, {scale[1][0], scale[1][1]}};
        add_chunk<T, R>(chunks, codes(depth), x.depth, scale, total);
        add_chunk<T, R>(chunks + chunk_bytes<T>(), codes(depth + 32), x.depth, second, total);
        chunks += 2 * chunk_bytes<T>();
      }
    }
    if constexpr (T == DType::kQ6_K) {  // codes are 32 too large
      for (int r = 0; r < R; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          total[r][v] = Ops::sub32(total[r][v], Ops::template left<5>(least[r][v]));
        }
      }
    }
    finish(b, total, least, weights);
    weights = chunks;
  }

  INLINE void run(const float* bias, int64_t columns, float* out, int64_t out_stride) {
    for (int r = 0; r < R; ++r) std::fill_n(sums[r], kPanel, 0.0f);
    for (int64_t b = 0; b < x.blocks; ++b) block(b);
    for (int r = 0; r < R; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        out[r * out_stride + c] = bias != nullptr ? sums[r][c] + bias[c] : sums[r][c];
      }
    }
  }
};

template <DType T, int R>
void run_tile(const QuantBlockProduct& p, int64_t row, const std::byte* weights, int64_t column) {
  Tile<T, R> tile{p.x, p.first_row + row, weights, {}};
  tile.run(p.bias == nullptr ? nullptr : p.bias + column,
           std::min<int64_t>(kPanel, p.columns - column), p.out + row * p.out_stride + column,
           p.out_stride);
}

template <DType T>
void run_product(const QuantBlockProduct& p) {
  const int64_t panel_bytes = p.x.blocks * packed_block_bytes(T, kLanes);
  const std::byte* weights = p.weights;
  for (int64_t column = 0; column < p.columns; column += kPanel, weights += panel_bytes) {
    // Few heights: every one is a long piece of code for each type.
    int64_t row = 0;
    for (; row + 4 <= p.rows; row += 4) run_tile<T, 4>(p, row, weights, column);
    for (; row + 2 <= p.rows; row += 2) run_tile<T, 2>(p, row, weights, column);
    if (row < p.rows) run_tile<T, 1>(p, row, weights, column);
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

// --- activations

// The largest magnitude of n values (a multiple of the lanes) as its bits: NaN above all.
INLINE uint32_t largest_magnitude(const float* x, int n) {
  Int most = Ops::zero();
  for (int i = 0; i < n; i += kLanes) {
    most = Ops::max32(most, Ops::bit_and(Ops::load(x + i), Ops::set32(0x7fffffff)));
  }
  alignas(64) uint32_t lanes[kLanes];
  Ops::store(most, lanes);
  return *std::max_element(lanes, lanes + kLanes);
}

void quantise_row(DType type, const float* x, const QuantRows& to, int64_t t) {
  const int64_t block = to.depth / std::max<int64_t>(to.blocks, 1);
  const int64_t group = to.depth / std::max<int64_t>(to.groups, 1);
  constexpr uint32_t kInfinity = 0x7f800000u, kTooSmall = 0x0d800000u;  // 2^-100
  for (int64_t b = 0; b < to.blocks; ++b) {
    const float* from = x + b * block;
    int8_t* codes = to.codes + t * to.depth + b * block;
    const uint32_t most = largest_magnitude(from, static_cast<int>(block));
    const bool finite = most < kInfinity;
    const float magnitude = std::bit_cast<float>(most);
    const float inverse = !finite || most < kTooSmall ? 0.0f : 127.0f / magnitude;
    float& scale = to.scales[t * to.blocks + b];
    scale = !finite            ? std::numeric_limits<float>::quiet_NaN()
            : most < kTooSmall ? 0.0f
                               : magnitude / 127.0f;
    for (int64_t i = 0; i < block; i += kLanes) {
      const Float scaled =
          finite ? Ops::mul(Ops::load_floats(from + i), Ops::set(inverse)) : Ops::set(0);
      alignas(64) int32_t rounded[kLanes];
      Ops::store(Ops::round(scaled), rounded);
      for (int l = 0; l < kLanes; ++l) codes[i + l] = static_cast<int8_t>(rounded[l]);
    }
    for (int64_t g = 0; g < block / group; ++g) {
      int sum = 0;
      for (int64_t i = 0; i < group; ++i) sum += codes[g * group + i];
      to.sums[t * to.groups + b * (block / group) + g] = static_cast<int16_t>(sum);
    }
  }
}
