// What:    the canonical fold of attention, written once over a set of 16-lane operations.
// Owns:    nothing.
// Threads: one per item.
// Fails:   never.
//
// Included inside the namespace (and under the target pragmas) of each instruction set, after
// attention_tiles.h; it opens no namespace and includes nothing.
//
// For one query row and head, slots ascending:
//   range   a fresh state (o, l, m) at every multiple of R = 512 slots; ranges merge left to right,
//           and behind them all the dropped slots that the row sees, which are one range
//   page    inside a range the state moves on page by page: when the page's maximum exceeds m by
//           more than kRise (or m is -inf), m becomes that maximum and o and l are scaled; then
//           p = 2^(s - m), l += p by lane, o += p v slot by slot
//   score   s = sum over ascending d of q k, one fused chain per slot
// Nothing here depends on the tile, the rows beside, or the node a page belongs to; four pages are
// only processed at once where that is the same arithmetic.
//
// Ops: F16 (16 floats), arithmetic on it, and columns(rows): how many 16-lane columns (1, 2 or 4) a
// register tile of so many rows takes.
// Pages (a type of page and how it is multiplied):
//   kRows            the most rows of a register tile
//   Element          what q and p are held as: float or bf16 bits
//   Stored           what a page holds
//   kPerStep         elements of the sum that one step covers; kTerms: fused terms per step
//   value_step(Dp)   from one step over slots to the next, in bytes; kColumn: from 16 elements of
//                    the head to the next 16
//   right<t>(p)      term t of 16 lanes at p (a Right);  left<t>(a): its factor, broadcast
//   product          acc + left * right
//   put(f, e)        stores 16 floats as elements and returns them as stored
//   kScaledQ         q carries scale2; otherwise the scores are multiplied by it
//   kSlotScales      behind K and V stand a scale per slot of K, which multiplies the score, and a
//                    scale of V, which multiplies p before it is rounded (l sums p without it)
// Fold: page(i, n), the i-th page of a tile of n to be folded.

inline constexpr float kRise = 8.0f;  // base 2: p stays below 256

struct CanonicalFold {
  static constexpr int page(int i, int) { return i; }
};

template <class Ops, class Pages, class Fold>
class ItemFold {
  using F16 = typename Ops::F16;
  using Element = typename Pages::Element;
  static constexpr int kRows = Pages::kRows;  // rows of a register tile
  static constexpr int64_t kBytes = sizeof(typename Pages::Stored);

 public:
  ItemFold(const AttentionJob& job, const AttentionItem& item, const AttentionRows& rows)
      : job_(job), item_(item), rows_(rows), dim_(job.padded_dim) {}

  void run() {
    load_rows();
    TileWalk walk(job_, item_, rows_);
    Tile tile, ahead;
    for (bool more = walk.next(tile); more; tile = ahead) {
      more = walk.next(ahead);
      fold_tile(tile, more ? &ahead : nullptr);
    }
    for (int32_t i = 0; i < packed(); ++i) close_range(i);
    if (item_.split < 0) write_rows();
  }

  void merge() {
    for (int32_t i = 0; i < packed(); ++i) clear_total(i);
    for (int32_t range = 0; range < item_.partials.ranges; ++range) {
      for (int32_t i = 0; i < packed(); ++i) {
        const int64_t at = int64_t{range} * packed() + i;
        merge_range(i, item_.partials.o + at * dim_, item_.partials.m[at], item_.partials.l[at]);
      }
    }
    write_rows();
  }

 private:
  int32_t packed() const { return (item_.row_end - item_.row_begin) * job_.group; }
  // First element of a packed row's query head in q and out.
  int64_t source(int32_t i) const {
    const int64_t row = item_.row_begin + i / job_.group;
    const int64_t head = int64_t{item_.kv_head} * job_.group + i % job_.group;
    return (row * job_.query_heads + head) * job_.dim;
  }
  Element* query(int32_t i) const {
    return reinterpret_cast<Element*>(rows_.q) + int64_t{i} * dim_;
  }
  float* running(int32_t i) const { return rows_.o + int64_t{i} * dim_; }
  float* total(int32_t i) const { return rows_.total_o + int64_t{i} * dim_; }

  // --- rows in and out

  void load_rows() {
    const int32_t list = job_.layer * job_.plan->kv_heads + item_.kv_head;
    for (int32_t i = 0; i < packed(); ++i) {
      const int32_t row = item_.row_begin + i / job_.group;
      rows_.first[i] = job_.first(list, row);
      rows_.last[i] = job_.plan->last(list, row);
      if (item_.dropped_range >= 0) {
        rows_.dropped_first[i] = job_.plan->first_dropped(list, row);
        rows_.dropped_last[i] = job_.plan->last_dropped(list, row);
      }
      rows_.range[i] = -1;
      load_query(i);
      clear_total(i);
    }
    if (item_.split < 0) return;
    const int32_t from = item_.slot_begin / kFoldRange - item_.partials.first_range;
    const int32_t to =
        (item_.dropped_range >= 0 ? item_.dropped_range + 1 : item_.slot_end / kFoldRange) -
        item_.partials.first_range;
    std::fill(item_.partials.m + int64_t{from} * packed(),
              item_.partials.m + int64_t{to} * packed(), kLowest);
  }

  void load_query(int32_t i) {
    const float* from = job_.q + source(i);
    const F16 scale = Ops::set(Pages::kScaledQ ? job_.scale2 : 1.0f);
    int32_t d = 0;
    for (; d + 16 <= job_.dim; d += 16) {
      Pages::put(Ops::mul(Ops::load_unaligned(from + d), scale), query(i) + d);
    }
    if (d == dim_) return;
    alignas(64) float padded[16] = {};
    std::copy_n(from + d, job_.dim - d, padded);
    Pages::put(Ops::mul(Ops::load(padded), scale), query(i) + d);
  }

  void clear_total(int32_t i) {
    rows_.total_m[i] = kLowest;
    rows_.total_l[i] = 0.0f;
    std::fill(total(i), total(i) + dim_, 0.0f);
  }

  void write_rows() {
    for (int32_t i = 0; i < packed(); ++i) {
      float* to = job_.out + source(i);
      const float sum = rows_.total_l[i];
      const F16 inverse = Ops::set(sum > 0.0f ? 1.0f / sum : 0.0f);
      // Adding zero turns a sum of vanished terms, -0 or +0 by way of masked slots, into +0.
      const auto mean = [&](int32_t d) {
        return Ops::add(Ops::mul(Ops::load(total(i) + d), inverse), Ops::zero());
      };
      int32_t d = 0;
      for (; d + 16 <= job_.dim; d += 16) Ops::store_unaligned(mean(d), to + d);
      if (d == dim_) continue;
      alignas(64) float padded[16];
      Ops::store(mean(d), padded);
      std::copy_n(padded, job_.dim - d, to + d);
    }
  }

  // --- ranges

  void enter_range(int32_t i, int32_t range) {
    if (rows_.range[i] == range) return;
    close_range(i);
    rows_.range[i] = range;
    rows_.m[i] = kLowest;
    std::fill(rows_.l + int64_t{i} * 16, rows_.l + int64_t{i} * 16 + 16, 0.0f);
    std::fill(running(i), running(i) + dim_, 0.0f);
  }

  void close_range(int32_t i) {
    if (rows_.range[i] < 0 || rows_.m[i] == kLowest) return;
    const float* lanes = rows_.l + int64_t{i} * 16;
    float sum = 0.0f;
    for (int lane = 0; lane < 16; ++lane) sum += lanes[lane];
    if (item_.split < 0) return merge_range(i, running(i), rows_.m[i], sum);
    const int64_t at = int64_t{rows_.range[i] - item_.partials.first_range} * packed() + i;
    item_.partials.m[at] = rows_.m[i];
    item_.partials.l[at] = sum;
    std::copy_n(running(i), dim_, item_.partials.o + at * dim_);
  }

  void merge_range(int32_t i, const float* o, float m, float l) {
    if (m == kLowest) return;
    const float top = std::max(rows_.total_m[i], m);
    const F16 before = Ops::exp2(Ops::set(rows_.total_m[i] - top));
    const F16 now = Ops::exp2(Ops::set(m - top));
    float* to = total(i);
    for (int32_t d = 0; d < dim_; d += 16) {
      Ops::store(Ops::fma(Ops::load(o + d), now, Ops::mul(Ops::load(to + d), before)), to + d);
    }
    rows_.total_l[i] = rows_.total_l[i] * Ops::first(before) + l * Ops::first(now);
    rows_.total_m[i] = top;
  }

  // --- tiles

  // Keys pass all rows, then values pass all rows: each stays in the first-level cache meanwhile.
  void fold_tile(const Tile& tile, const Tile* ahead) {
    const int32_t begin = (tile.row_begin - item_.row_begin) * job_.group;
    const int32_t end = (tile.row_end - item_.row_begin) * job_.group;
    for (int32_t i = begin; i < end; ++i) enter_range(i, tile.range);
    for_blocks(begin, end, tile, ahead, [this](auto rows, const Block& block) {
      weigh_block<decltype(rows)::value>(block);
    });
    for_blocks(begin, end, tile, ahead,
               [this](auto rows, const Block& block) { mix_block<decltype(rows)::value>(block); });
  }

  // A register tile's rows, from packed row i, and the pages [from, to) that any of them sees.
  struct Block {
    const Tile& tile;
    int32_t i = 0;
    int from = 0, to = 0;
    bool whole = false;  // every row sees every slot of these pages
    // From a page to what the next tile will read at its place: fetched by the first block.
    std::array<ptrdiff_t, kTilePages> ahead{};
  };

  // Cuts packed rows into register tiles of up to kRows, as even as they come.
  template <class Fn>
  void for_blocks(int32_t begin, int32_t end, const Tile& tile, const Tile* ahead, const Fn& fn) {
    int32_t blocks = (end - begin + kRows - 1) / kRows;
    for (int32_t i = begin; blocks > 0; --blocks) {
      const int32_t rows = (end - i + blocks - 1) / blocks;
      Block block{.tile = tile, .i = i};
      bound_block(rows, block);
      for (int k = 0; i == begin && ahead != nullptr && k < ahead->pages; ++k) {
        const auto page = static_cast<size_t>(k);
        if (k < tile.pages) block.ahead[page] = ahead->page[page] - tile.page[page];
      }
      if (block.from < block.to) dispatch_rows<kRows>(rows, block, fn);
      i += rows;
    }
  }

  template <int kN, class Fn>
  void dispatch_rows(int32_t rows, const Block& block, const Fn& fn) {
    if (rows == kN) return fn(std::integral_constant<int, kN>(), block);
    if constexpr (kN > 1) dispatch_rows<kN - 1>(rows, block, fn);
  }

  void bound_block(int32_t rows, Block& block) {
    const int32_t *firsts = block.tile.first, *lasts = block.tile.last;
    int32_t first = firsts[block.i], last = lasts[block.i];
    int32_t first_all = first, last_all = last;
    for (int32_t i = block.i + 1; i < block.i + rows; ++i) {
      first = std::min(first, firsts[i]);
      last = std::max(last, lasts[i]);
      first_all = std::max(first_all, firsts[i]);
      last_all = std::min(last_all, lasts[i]);
    }
    const int32_t slot = block.tile.slot;
    block.from = std::max(0, (first - slot) / kPageSlots);
    block.to = std::min(block.tile.pages, (last - slot + kPageSlots - 1) / kPageSlots);
    block.whole =
        first_all <= slot + block.from * kPageSlots && last_all >= slot + block.to * kPageSlots;
  }

  // --- scores

  // Scores a block's pages and turns them into weights.
  template <int kN>
  void weigh_block(const Block& block) {
    alignas(64) float scores[kN][kChunk];
    constexpr int kC = Ops::columns(kN);
    int k = block.from;
    for (; k + kC <= block.to; k += kC) score_pages<kN, kC>(block, k, scores);
    if constexpr (kC > 2) {
      for (; k + 2 <= block.to; k += 2) score_pages<kN, 2>(block, k, scores);
    }
    if constexpr (kC > 1) {
      for (; k < block.to; ++k) score_pages<kN, 1>(block, k, scores);
    }
    if (!block.whole) hide<kN>(block, scores);
    for (int r = 0; r < kN; ++r) weigh_row(block, block.i + r, scores[r]);
  }

  template <int kN, int kC>
  __attribute__((noinline)) void score_pages(const Block& block, int k,
                                             float (&scores)[kN][kChunk]) {
    F16 sum[kN][kC];
    COPPICE_UNROLL
    for (int r = 0; r < kN; ++r) {
      COPPICE_UNROLL
      for (int c = 0; c < kC; ++c) sum[r][c] = Ops::zero();
    }
    const Element* q = query(block.i);
    const std::byte* keys[kC];
    ptrdiff_t ahead[kC];
    for (int c = 0; c < kC; ++c) {
      keys[c] = block.tile.page[static_cast<size_t>(k + c)];
      ahead[c] = block.ahead[static_cast<size_t>(k + c)];
    }
    for (int32_t d = 0; d < dim_; d += Pages::kPerStep) {
      accumulate<kN, kC>(q + d, dim_, keys, sum);
      COPPICE_UNROLL
      for (int c = 0; c < kC; ++c) {
        Ops::prefetch(keys[c] + ahead[c]);
        keys[c] += kPageSlots * kBytes * Pages::kPerStep;
      }
    }
    COPPICE_UNROLL
    for (int c = 0; c < kC; ++c) {
      const std::byte* page = block.tile.page[static_cast<size_t>(k + c)];
      const F16 factor = score_factor(page);
      if constexpr (Pages::kSlotScales) {
        Ops::prefetch(slot_scales(page + ahead[c]));
        Ops::prefetch(slot_scales(page + ahead[c]) + kPageSlots);
      }
      COPPICE_UNROLL
      for (int r = 0; r < kN; ++r) {
        if constexpr (kScalesScores) sum[r][c] = Ops::mul(sum[r][c], factor);
        Ops::store(sum[r][c], scores[r] + (k + c) * kPageSlots);
      }
    }
  }

  static constexpr bool kScalesScores = !Pages::kScaledQ || Pages::kSlotScales;

  // What a page's sums are multiplied by to be scores.
  F16 score_factor(const std::byte* page) const {
    const F16 scale = Ops::set(Pages::kScaledQ ? 1.0f : job_.scale2);
    if constexpr (!Pages::kSlotScales) return scale;
    const F16 slots = Ops::load(slot_scales(page));
    return Pages::kScaledQ ? slots : Ops::mul(slots, scale);
  }

  const std::byte* values_of(const std::byte* page) const {
    return page + dim_ * kPageSlots * kBytes;
  }
  // K's of 16 slots, then V's.
  const float* slot_scales(const std::byte* page) const {
    return reinterpret_cast<const float*>(page + 2 * dim_ * kPageSlots * kBytes);
  }

  // sum[r][c] += left[r] * right[c] over one step; left rows are `stride` elements apart.
  template <int kN, int kC>
  static COPPICE_INLINE void accumulate(const Element* left, int64_t stride,
                                        const std::byte* const* right, F16 (&sum)[kN][kC]) {
    accumulate_term<0, kN, kC>(left, stride, right, sum);
    if constexpr (Pages::kTerms > 1) accumulate_term<1, kN, kC>(left, stride, right, sum);
    if constexpr (Pages::kTerms > 2) accumulate_term<2, kN, kC>(left, stride, right, sum);
    if constexpr (Pages::kTerms > 3) accumulate_term<3, kN, kC>(left, stride, right, sum);
  }

  template <int kTerm, int kN, int kC>
  static COPPICE_INLINE void accumulate_term(const Element* left, int64_t stride,
                                             const std::byte* const* right, F16 (&sum)[kN][kC]) {
    if constexpr (kN == 1) {
      // Each line just before its product: all of them beside the sums do not fit 16 registers.
      const auto a = Pages::template left<kTerm>(left);
      COPPICE_UNROLL
      for (int c = 0; c < kC; ++c) {
        sum[0][c] = Pages::product(a, Pages::template right<kTerm>(right[c]), sum[0][c]);
      }
      return;
    }
    typename Pages::Right b[kC];
    COPPICE_UNROLL
    for (int c = 0; c < kC; ++c) b[c] = Pages::template right<kTerm>(right[c]);
    COPPICE_UNROLL
    for (int r = 0; r < kN; ++r) {
      const auto a = Pages::template left<kTerm>(left + r * stride);
      COPPICE_UNROLL
      for (int c = 0; c < kC; ++c) sum[r][c] = Pages::product(a, b[c], sum[r][c]);
    }
  }

  // Slots that a row does not see score -inf.
  template <int kN>
  void hide(const Block& block, float (&scores)[kN][kChunk]) {
    for (int r = 0; r < kN; ++r) {
      for (int k = block.from; k < block.to; ++k) {
        float* page = scores[r] + k * kPageSlots;
        const int32_t slot = block.tile.slot + k * kPageSlots;
        const int32_t first = std::clamp(block.tile.first[block.i + r] - slot, 0, kPageSlots);
        const int32_t last = std::clamp(block.tile.last[block.i + r] - slot, first, kPageSlots);
        Ops::store(Ops::keep_lanes(Ops::load(page), first, last), page);
      }
    }
  }

  // --- weights: the probabilities of a tile, relative to the running maximum

  Element* weights(int32_t i) const {
    return reinterpret_cast<Element*>(rows_.weights) + int64_t{i} * kChunk;
  }

  // Stores what multiplies a page's values; returns what l sums.
  COPPICE_INLINE F16 put_weights(const F16& p, const Block& block, int32_t i, int k) {
    Element* to = weights(i) + k * kPageSlots;
    if constexpr (!Pages::kSlotScales) return Pages::put(p, to);
    const float* scales = slot_scales(block.tile.page[static_cast<size_t>(k)]) + kPageSlots;
    Pages::put(Ops::mul(p, Ops::load(scales)), to);
    return p;
  }

  __attribute__((noinline)) void weigh_row(const Block& block, int32_t i, const float* scores) {
    const int from = block.from, count = block.to - block.from;
    F16 top = Ops::load(scores + from * kPageSlots);
    for (int k = from + 1; k < block.to; ++k) {
      top = Ops::max(top, Ops::load(scores + k * kPageSlots));
    }
    rows_.rises[i] = 0;
    if (Ops::reduce_max(top) > rows_.m[i] + kRise) return weigh_rising_row(block, i, scores);
    const F16 m = Ops::set(rows_.m[i]);
    F16 l = Ops::load(rows_.l + int64_t{i} * 16);
    for (int n = 0; n < count; ++n) {
      const int k = from + Fold::page(n, count);
      const F16 p = Ops::exp2(Ops::sub(Ops::load(scores + k * kPageSlots), m));
      l = Ops::add(l, put_weights(p, block, i, k));
    }
    Ops::store(l, rows_.l + int64_t{i} * 16);
  }

  // Page by page: bit k of rises says that o is to be scaled by factor[k] before page k.
  void weigh_rising_row(const Block& block, int32_t i, const float* scores) {
    const int from = block.from, count = block.to - block.from;
    float m = rows_.m[i];
    F16 l = Ops::load(rows_.l + int64_t{i} * 16);
    for (int n = 0; n < count; ++n) {
      const int k = from + Fold::page(n, count);
      const F16 s = Ops::load(scores + k * kPageSlots);
      const float top = Ops::reduce_max(s);
      if (top > m + kRise) {
        if (m != kLowest) {
          const F16 factor = Ops::exp2(Ops::set(m - top));
          l = Ops::mul(l, factor);
          rows_.factor[i * kTilePages + k] = Ops::first(factor);
          rows_.rises[i] |= 1 << k;
        }
        m = top;
      }
      const F16 p = Ops::exp2(Ops::sub(s, Ops::set(m)));
      l = Ops::add(l, put_weights(p, block, i, k));
    }
    rows_.m[i] = m;
    Ops::store(l, rows_.l + int64_t{i} * 16);
  }

  // --- weighted sums

  // o += p v over the block's pages, scaling o before a page where a row's maximum rose.
  template <int kN>
  void mix_block(const Block& block) {
    int32_t rises = 0;
    for (int r = 0; r < kN; ++r) rises |= rows_.rises[block.i + r];
    const int count = block.to - block.from;
    for (int n = 0; n < count;) {
      const int begin = n++;
      const int k = block.from + Fold::page(begin, count);
      for (int r = 0; r < kN; ++r) {
        if (rows_.rises[block.i + r] >> k & 1) scale_running(block.i + r, k);
      }
      while (n < count && (rises >> (block.from + Fold::page(n, count)) & 1) == 0) ++n;
      mix_pages<kN>(block, begin, n);
    }
  }

  void scale_running(int32_t i, int k) {
    const F16 factor = Ops::set(rows_.factor[i * kTilePages + k]);
    float* o = running(i);
    for (int32_t d = 0; d < dim_; d += 16) Ops::store(Ops::mul(Ops::load(o + d), factor), o + d);
  }

  template <int kN>
  void mix_pages(const Block& block, int begin, int end) {
    constexpr int kC = Ops::columns(kN);
    int32_t d = 0;
    for (; d + 16 * kC <= dim_; d += 16 * kC) mix_columns<kN, kC>(block, d, begin, end);
    if constexpr (kC > 1) {
      for (; d < dim_; d += 16) mix_columns<kN, 1>(block, d, begin, end);
    }
  }

  template <int kN, int kC>
  __attribute__((noinline)) void mix_columns(const Block& block, int32_t d, int begin, int end) {
    const int64_t stride = Pages::value_step(dim_);
    F16 sum[kN][kC];
    float* o = running(block.i) + d;
    COPPICE_UNROLL
    for (int r = 0; r < kN; ++r) {
      COPPICE_UNROLL
      for (int c = 0; c < kC; ++c) sum[r][c] = Ops::load(o + r * dim_ + c * 16);
    }
    for (int n = begin; n < end; ++n) {
      const int k = block.from + Fold::page(n, block.to - block.from);
      const std::byte* columns[kC];
      const std::byte* page = block.tile.page[static_cast<size_t>(k)];
      const std::byte* values = values_of(page) + d / 16 * Pages::kColumn;
      for (int c = 0; c < kC; ++c) columns[c] = values + c * Pages::kColumn;
      // The call's share of the values ahead, by ascending address: the machine's own prefetcher
      // follows.
      const std::byte* ahead =
          values_of(page + block.ahead[static_cast<size_t>(k)]) + d * kPageSlots * kBytes;
      const Element* p = weights(block.i) + k * kPageSlots;
      for (int slot = 0; slot < kPageSlots; slot += Pages::kPerStep) {
        accumulate<kN, kC>(p + slot, kChunk, columns, sum);
        COPPICE_UNROLL
        for (int c = 0; c < kC; ++c) {
          Ops::prefetch(ahead);
          ahead += 64;
          columns[c] += stride;
        }
      }
    }
    COPPICE_UNROLL
    for (int r = 0; r < kN; ++r) {
      COPPICE_UNROLL
      for (int c = 0; c < kC; ++c) Ops::store(sum[r][c], o + r * dim_ + c * 16);
    }
  }

  const AttentionJob& job_;
  const AttentionItem& item_;
  const AttentionRows& rows_;
  const int32_t dim_;  // Dp
};

template <class Ops, class Pages, class Fold = CanonicalFold>
void run_item(const AttentionJob& job, const AttentionItem& item, const AttentionRows& rows) {
  ItemFold<Ops, Pages, Fold>(job, item, rows).run();
}

template <class Ops, class Pages>
void merge_item(const AttentionJob& job, const AttentionItem& item, const AttentionRows& rows) {
  ItemFold<Ops, Pages, CanonicalFold>(job, item, rows).merge();
}
