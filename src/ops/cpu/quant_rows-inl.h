// Rows of activations to quantised records over one instruction set's vectors (quant_kernels.h has
// the layout). Included inside the target region of quant_*.cc, once each, after
// quant_product-inl.h.

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

// A block's scale, and what its values are multiplied by to become codes.
struct BlockScale {
  float scale, inverse;
  bool finite;
};

INLINE BlockScale block_scale(const float* x, int block) {
  constexpr uint32_t kInfinity = 0x7f800000u, kTooSmall = 0x0d800000u;  // 2^-100
  const uint32_t most = largest_magnitude(x, block);
  if (most >= kInfinity) return {std::numeric_limits<float>::quiet_NaN(), 0.0f, false};
  if (most < kTooSmall) return {0.0f, 0.0f, true};
  const float magnitude = std::bit_cast<float>(most);
  return {magnitude / 127.0f, 127.0f / magnitude, true};
}

// codes [Block] of x and sums[i] of 16 of them each.
template <int Block>
INLINE void block_codes(const float* x, const BlockScale& by, int8_t* codes, int16_t* sums) {
  const Float inverse = Ops::set(by.inverse);
  for (int i = 0; i < Block; i += 16) {
    Int sum = Ops::zero();
    for (int j = i; j < i + 16; j += kLanes) {
      const Int rounded =
          by.finite ? Ops::round(Ops::mul(Ops::load_floats(x + j), inverse)) : Ops::zero();
      Ops::store_bytes(rounded, codes + j);
      sum = Ops::add32(sum, rounded);
    }
    sums[i / 16] = static_cast<int16_t>(Ops::sum(sum));
  }
}

INLINE int32_t pair_of(int first, int second) {
  return static_cast<int32_t>(static_cast<uint32_t>(first & 0xffff) | static_cast<uint32_t>(second)
                                                                          << 16);
}

// Words of a record's part, one row's: `height` words apart.
struct RowWords {
  std::byte* at;
  int64_t height;
  INLINE void put(int64_t i, int32_t word) const {
    std::memcpy(at + i * height * 4, &word, sizeof(word));
  }
};

template <int Block>
INLINE void quantise_block(const float* x, const RowWords& words) {
  alignas(64) int8_t codes[Block];
  int16_t sums[Block / 16];
  const BlockScale by = block_scale(x, Block);
  block_codes<Block>(x, by, codes, sums);
  int64_t i = 0;
  words.put(i++, std::bit_cast<int32_t>(by.scale));
  if constexpr (Block == 32) {
    words.put(i++, sums[0] + sums[1]);
  } else {
    for (int g = 0; g < Block / 16; g += 4) {
      words.put(i++, pair_of(sums[g] + sums[g + 1], sums[g + 2] + sums[g + 3]));
    }
    for (int g = 0; g < Block / 16; g += 2) words.put(i++, pair_of(sums[g], sums[g + 1]));
  }
  for (int q = 0; q < Block / 4; ++q) {
    int32_t word;
    std::memcpy(&word, codes + 4 * q, sizeof(word));
    words.put(i++, word);
  }
}

void quantise_row(const float* x, const QuantRows& to, int64_t t) {
  const QuantRowTile tile = quant_row_tile(t, to.rows);
  const int64_t record = to.format.record_words() * tile.height * 4;
  RowWords words{to.tile(tile.first) + (t - tile.first) * 4, tile.height};
  for (int64_t b = 0; b < to.blocks(); ++b, x += to.format.block, words.at += record) {
    if (to.format.block == 32) {
      quantise_block<32>(x, words);
    } else {
      quantise_block<256>(x, words);
    }
  }
}
