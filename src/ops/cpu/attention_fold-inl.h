// What:    the canonical fold of attention, written once over a set of 16-lane operations.
// Owns:    nothing.
// Threads: one per item.
// Fails:   never.
//
// Included inside the namespace (and under the target pragmas) of each instruction set, after
// attention_tiles.h; it opens no namespace and includes nothing.
//
// For one query row and head, slots ascending:
//   range   a fresh state (o, l, m) at every multiple of R = 512 slots; ranges merge left to right
//   page    inside a range the state moves on page by page: when the page's maximum exceeds m by
//           more than kRise (or m is -inf), m becomes that maximum and o and l are scaled; then
//           p = 2^(s - m), l += p by lane, o += p v slot by slot
//   score   s = sum over ascending d of q k, one fused chain per slot
// Nothing here depends on the tile, the rows beside, or the node a page belongs to; four pages are
// only processed at once where that is the same arithmetic.
//
// Ops: F16 (16 floats), arithmetic on it, kRows, and columns(rows): how many 16-lane columns (1, 2
// or 4) a register tile of so many rows takes.
// Pages (a type of page and how it is multiplied):
//   Element          what q and p are held as: float or bf16 bits
//   kPerStep         elements of the sum that one step covers; kTerms: fused terms per step
//   right<t>(p)      term t of 16 lanes at p (a Right);  left<t>(a): its factor, broadcast
//   product          acc + left * right
//   put(f, e)        stores 16 floats as elements and returns them as stored
//   kScaledQ         q carries scale2; otherwise the scores are multiplied by it
// Fold: page(i, n), the i-th page of a tile of n to be folded.

inline constexpr float kRise = 8.0f;  // base 2: p stays below 256

struct CanonicalFold {
  static constexpr int page(int i, int) { return i; }
};

template <class Ops, class Pages, class Fold>
class ItemFold {
  using F16 = typename Ops::F16;
  using Element = typename Pages::Element;
  static constexpr int kRows = Ops::kRows;        // rows of a register tile
  static constexpr int kColumns = Ops::kColumns;  // 16-lane columns of it when it has one row

 public:
  ItemFold(const AttentionJob& job, const AttentionItem& item, const AttentionRows& rows)
      : job_(job), item_(item), rows_(rows), dim_(job.padded_dim) {}

  void run() {
    load_rows();
    TileWalk walk(job_, item_, rows_);
    Tile tile, ahead;
    for (bool more = walk.next(tile); more; tile = ahead) {
      more = walk.next(ahead);
      if (more) prefetch(ahead);
      fold_tile(tile);
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
      const int32_t last = job_.plan->last(list, row);
      int32_t first = job_.plan->first(list, row);
      if (job_.window > 0) first = std::max(first, last - job_.window);
      rows_.first[i] = first;
      rows_.last[i] = last;
      rows_.range[i] = -1;
      load_query(i);
      clear_total(i);
    }
    if (item_.split < 0) return;
    const int32_t from = item_.slot_begin / kFoldRange;
    const int32_t to = std::min(item_.partials.ranges, item_.slot_end / kFoldRange);
    std::fill(item_.partials.m + int64_t{from} * packed(),
              item_.partials.m + int64_t{to} * packed(), kLowest);
  }

  void load_query(int32_t i) {
    const float* from = job_.q + source(i);
    const F16 scale = Ops::set(Pages::kScaledQ ? job_.scale2 : 1.0f);
    alignas(64) float padded[16];
    for (int32_t d = 0; d < dim_; d += 16) {
      const int32_t valid = std::min(16, job_.dim - d);
      for (int32_t j = 0; j < 16; ++j) padded[j] = j < valid ? from[d + j] : 0.0f;
      Pages::put(Ops::mul(Ops::load(padded), scale), query(i) + d);
    }
  }

  void clear_total(int32_t i) {
    rows_.total_m[i] = kLowest;
    rows_.total_l[i] = 0.0f;
    std::fill(total(i), total(i) + dim_, 0.0f);
  }

  void write_rows() {
    alignas(64) float padded[16];
    for (int32_t i = 0; i < packed(); ++i) {
      float* to = job_.out + source(i);
      const float sum = rows_.total_l[i];
      const F16 inverse = Ops::set(sum > 0.0f ? 1.0f / sum : 0.0f);
      for (int32_t d = 0; d < dim_; d += 16) {
        // Adding zero turns a sum of vanished terms, -0 or +0 by way of masked slots, into +0.
        const F16 mean = Ops::mul(Ops::load(total(i) + d), inverse);
        Ops::store(Ops::add(mean, Ops::set(0.0f)), padded);
        std::copy_n(padded, std::min(16, job_.dim - d), to + d);
      }
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
    const int64_t at = int64_t{rows_.range[i]} * packed() + i;
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

  // Register tiles of up to kRows packed rows, as even as they come.
  void fold_tile(const Tile& tile) {
    const int32_t begin = (tile.row_begin - item_.row_begin) * job_.group;
    const int32_t end = (tile.row_end - item_.row_begin) * job_.group;
    const int32_t range = tile.slot / kFoldRange;
    for (int32_t i = begin; i < end; ++i) enter_range(i, range);
    int32_t blocks = (end - begin + kRows - 1) / kRows;
    for (int32_t i = begin; blocks > 0; --blocks) {
      const int32_t rows = (end - i + blocks - 1) / blocks;
      dispatch_rows<kRows>(rows, tile, i);
      i += rows;
    }
  }

  template <int kN>
  void dispatch_rows(int32_t rows, const Tile& tile, int32_t i) {
    if (rows == kN) return fold_rows<kN>(tile, i);
    if constexpr (kN > 1) dispatch_rows<kN - 1>(rows, tile, i);
  }

  // The rows' scores and probabilities over one tile. Page k of the tile is column k.
  template <int kN>
  struct Block {
    alignas(64) float scores[kN][kChunk];
    alignas(64) Element weights[kN][kChunk];
    float factor[kN][kTilePages];  // of o, before page k is added
    bool rises[kTilePages];        // whether any row's factor is not 1
  };

  template <int kN>
  void fold_rows(const Tile& tile, int32_t i) {
    int32_t first = rows_.first[i], last = rows_.last[i];
    int32_t first_all = first, last_all = last;
    for (int32_t r = 1; r < kN; ++r) {
      first = std::min(first, rows_.first[i + r]);
      last = std::max(last, rows_.last[i + r]);
      first_all = std::max(first_all, rows_.first[i + r]);
      last_all = std::min(last_all, rows_.last[i + r]);
    }
    const int32_t from = std::max(0, (first - tile.slot) / kPageSlots);
    const int32_t to = std::min(tile.pages, (last - tile.slot + kPageSlots - 1) / kPageSlots);
    if (from >= to) return;
    Block<kN> block;
    score<kN>(tile, i, from, to, block);
    if (first_all > tile.slot + from * kPageSlots || last_all < tile.slot + to * kPageSlots) {
      hide<kN>(tile.slot, i, from, to, block);
    }
    std::fill(block.rises, block.rises + kTilePages, false);
    for (int32_t r = 0; r < kN; ++r) weigh<kN>(r, i + r, from, to, block);
    mix<kN>(tile, i, from, to, block);
  }

  // --- scores

  template <int kN>
  void score(const Tile& tile, int32_t i, int from, int to, Block<kN>& block) {
    constexpr int kC = Ops::columns(kN);
    int k = from;
    for (; k + kC <= to; k += kC) score_pages<kN, kC>(tile, i, k, block);
    if constexpr (kC > 2) {
      for (; k + 2 <= to; k += 2) score_pages<kN, 2>(tile, i, k, block);
    }
    if constexpr (kC > 1) {
      for (; k < to; ++k) score_pages<kN, 1>(tile, i, k, block);
    }
  }

  template <int kN, int kC>
  void score_pages(const Tile& tile, int32_t i, int k, Block<kN>& block) {
    constexpr int64_t kStride = kPageSlots * int64_t{sizeof(typename Pages::Stored)};
    F16 sum[kN][kC];
    for (int r = 0; r < kN; ++r) {
      for (int c = 0; c < kC; ++c) sum[r][c] = Ops::zero();
    }
    const Element* q = query(i);
    const std::byte* keys[kC];
    for (int c = 0; c < kC; ++c) keys[c] = tile.page[static_cast<size_t>(k + c)];
    for (int32_t d = 0; d < dim_; d += Pages::kPerStep) {
      accumulate<kN, kC>(q + d, dim_, keys, sum);
      for (int c = 0; c < kC; ++c) keys[c] += kStride * Pages::kPerStep;
    }
    for (int r = 0; r < kN; ++r) {
      for (int c = 0; c < kC; ++c) {
        if constexpr (!Pages::kScaledQ) sum[r][c] = Ops::mul(sum[r][c], Ops::set(job_.scale2));
        Ops::store(sum[r][c], block.scores[r] + (k + c) * kPageSlots);
      }
    }
  }

  // sum[r][c] += left[r] * right[c] over one step; left rows are `stride` elements apart.
  template <int kN, int kC>
  static void accumulate(const Element* left, int64_t stride, const std::byte* const* right,
                         F16 (&sum)[kN][kC]) {
    accumulate_term<0, kN, kC>(left, stride, right, sum);
    if constexpr (Pages::kTerms > 1) accumulate_term<1, kN, kC>(left, stride, right, sum);
  }

  template <int kTerm, int kN, int kC>
  static void accumulate_term(const Element* left, int64_t stride, const std::byte* const* right,
                              F16 (&sum)[kN][kC]) {
    typename Pages::Right b[kC];
    for (int c = 0; c < kC; ++c) b[c] = Pages::template right<kTerm>(right[c]);
    for (int r = 0; r < kN; ++r) {
      const auto a = Pages::template left<kTerm>(left + r * stride);
      for (int c = 0; c < kC; ++c) sum[r][c] = Pages::product(a, b[c], sum[r][c]);
    }
  }

  // Slots that a row does not see score -inf.
  template <int kN>
  void hide(int32_t slot, int32_t i, int from, int to, Block<kN>& block) {
    for (int r = 0; r < kN; ++r) {
      for (int k = from; k < to; ++k) {
        float* scores = block.scores[r] + k * kPageSlots;
        const int32_t page_slot = slot + k * kPageSlots;
        const int32_t first = std::clamp(rows_.first[i + r] - page_slot, 0, kPageSlots);
        const int32_t last = std::clamp(rows_.last[i + r] - page_slot, first, kPageSlots);
        Ops::store(Ops::keep_lanes(Ops::load(scores), first, last), scores);
      }
    }
  }

  // --- probabilities

  template <int kN>
  void weigh(int r, int32_t i, int from, int to, Block<kN>& block) {
    const float* scores = block.scores[r];
    F16 top = Ops::load(scores + from * kPageSlots);
    for (int k = from + 1; k < to; ++k) top = Ops::max(top, Ops::load(scores + k * kPageSlots));
    const bool rise = Ops::reduce_max(top) > rows_.m[i] + kRise;
    float* lanes = rows_.l + int64_t{i} * 16;
    F16 l = Ops::load(lanes);
    float m = rows_.m[i];
    for (int n = from; n < to; ++n) {
      const int k = from + Fold::page(n - from, to - from);
      const F16 s = Ops::load(scores + k * kPageSlots);
      if (rise) {
        block.factor[r][k] = 1.0f;
        const float page_top = Ops::reduce_max(s);
        if (page_top > m + kRise) {
          if (m != kLowest) {
            const F16 factor = Ops::exp2(Ops::set(m - page_top));
            l = Ops::mul(l, factor);
            block.factor[r][k] = Ops::first(factor);
            block.rises[k] = true;
          }
          m = page_top;
        }
      }
      l = Ops::add(
          l, Pages::put(Ops::exp2(Ops::sub(s, Ops::set(m))), block.weights[r] + k * kPageSlots));
    }
    if (!rise) {
      for (int k = from; k < to; ++k) block.factor[r][k] = 1.0f;
    }
    rows_.m[i] = m;
    Ops::store(l, lanes);
  }

  // --- weighted sums

  // o += p v over the tile's pages, scaling o before a page where the maximum rose.
  template <int kN>
  void mix(const Tile& tile, int32_t i, int from, int to, const Block<kN>& block) {
    int n = 0;
    const int count = to - from;
    while (n < count) {
      const int begin = n++;
      const int k = from + Fold::page(begin, count);
      if (block.rises[k]) scale_running<kN>(i, k, block);
      while (n < count && !block.rises[from + Fold::page(n, count)]) ++n;
      mix_pages<kN>(tile, i, from, count, begin, n, block);
    }
  }

  template <int kN>
  void scale_running(int32_t i, int k, const Block<kN>& block) {
    for (int r = 0; r < kN; ++r) {
      if (block.factor[r][k] == 1.0f) continue;
      const F16 factor = Ops::set(block.factor[r][k]);
      float* o = running(i + r);
      for (int32_t d = 0; d < dim_; d += 16) Ops::store(Ops::mul(Ops::load(o + d), factor), o + d);
    }
  }

  template <int kN>
  void mix_pages(const Tile& tile, int32_t i, int from, int count, int begin, int end,
                 const Block<kN>& block) {
    constexpr int kC = Ops::columns(kN);
    int32_t d = 0;
    for (; d + 16 * kC <= dim_; d += 16 * kC) {
      mix_columns<kN, kC>(tile, i, d, from, count, begin, end, block);
    }
    if constexpr (kC > 1) {
      for (; d < dim_; d += 16) mix_columns<kN, 1>(tile, i, d, from, count, begin, end, block);
    }
  }

  template <int kN, int kC>
  void mix_columns(const Tile& tile, int32_t i, int32_t d, int from, int count, int begin, int end,
                   const Block<kN>& block) {
    constexpr int64_t kBytes = sizeof(typename Pages::Stored);
    const int64_t stride = dim_ * kBytes * Pages::kPerStep;
    F16 sum[kN][kC];
    for (int r = 0; r < kN; ++r) {
      for (int c = 0; c < kC; ++c) sum[r][c] = Ops::load(running(i + r) + d + c * 16);
    }
    for (int n = begin; n < end; ++n) {
      const int k = from + Fold::page(n, count);
      const std::byte* values = tile.page[static_cast<size_t>(k)] + dim_ * kPageSlots * kBytes +
                                d * kBytes * Pages::kPerStep;
      const Element* p = block.weights[0] + k * kPageSlots;
      for (int slot = 0; slot < kPageSlots; slot += Pages::kPerStep) {
        const std::byte* columns[kC];
        for (int c = 0; c < kC; ++c) columns[c] = values + c * 16 * kBytes * Pages::kPerStep;
        accumulate<kN, kC>(p + slot, kChunk, columns, sum);
        values += stride;
      }
    }
    for (int r = 0; r < kN; ++r) {
      for (int c = 0; c < kC; ++c) Ops::store(sum[r][c], running(i + r) + d + c * 16);
    }
  }

  void prefetch(const Tile& tile) const {
    for (int k = 0; k < tile.pages; ++k) {
      const std::byte* page = tile.page[static_cast<size_t>(k)];
      for (int64_t at = 0; at < job_.arena.layout.page_bytes; at += 64) Ops::prefetch(page + at);
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
