// What:    ways to multiply pages: f32 pages as they lie, and bf16 pairs, or int8 made such, by a
// dot
//          product of pairs that accumulates in f32 (queries and probabilities are rounded to bf16
//          pairs; over bf16 pages l sums them as rounded).
// Owns:    nothing.
// Threads: any.
// Fails:   never.
//
// Included inside the namespace and target pragmas of an instruction set, like
// attention_fold-inl.h, which says what a way consists of.

template <class Ops>
struct F32Pages {
  using F16 = typename Ops::F16;
  using Right = F16;
  using Element = float;
  using Stored = float;
  static constexpr int kRows = Ops::kRows;
  static constexpr int kPerStep = 1;
  static constexpr int kTerms = 1;
  static constexpr int64_t kColumn = 16 * sizeof(Stored);
  static constexpr int64_t value_step(int64_t dim) { return dim * int64_t{sizeof(Stored)}; }
  static constexpr bool kScaledQ = true;
  static constexpr bool kSlotScales = false;

  template <int kTerm>
  static COPPICE_INLINE F16 right(const std::byte* at) {
    return Ops::load(reinterpret_cast<const float*>(at));
  }
  template <int kTerm>
  static COPPICE_INLINE F16 left(const float* at) {
    return Ops::set(*at);
  }
  static COPPICE_INLINE F16 product(const F16& a, const F16& b, const F16& sum) {
    return Ops::fma(a, b, sum);
  }
  static COPPICE_INLINE F16 put(const F16& x, float* to) {
    Ops::store(x, to);
    return x;
  }
};

// Ops here also has Pair16 (16 pairs), load_pairs, broadcast_pair, dot(pair, pairs, sum) and
// put_bf16(f, to): stores 16 floats rounded to nearest even and returns them as rounded.
template <class Ops>
struct DotBf16 {
  using F16 = typename Ops::F16;
  using Right = typename Ops::Pair16;
  using Element = uint16_t;
  using Stored = uint16_t;
  static constexpr int kRows = Ops::kRows;
  static constexpr int kPerStep = 2;
  static constexpr int kTerms = 1;
  static constexpr int64_t kColumn = 16 * sizeof(Stored) * kPerStep;
  static constexpr int64_t value_step(int64_t dim) {
    return dim * int64_t{sizeof(Stored)} * kPerStep;
  }
  static constexpr bool kScaledQ = false;  // rounding q alone keeps what the caller rounded exact
  static constexpr bool kSlotScales = false;

  template <int kTerm>
  static COPPICE_INLINE Right right(const std::byte* at) {
    return Ops::load_pairs(at);
  }
  template <int kTerm>
  static COPPICE_INLINE Right left(const Element* at) {
    return Ops::broadcast_pair(at);
  }
  static COPPICE_INLINE F16 product(const Right& a, const Right& b, const F16& sum) {
    return Ops::dot(a, b, sum);
  }
  static COPPICE_INLINE F16 put(const F16& x, Element* to) { return Ops::put_bf16(x, to); }
};

// Ops here also has widen_pairs(at): 16 int8 at `at` and the 16 behind them, as pairs of bf16,
// which holds them exactly. A step is one line: four elements of the sum, two terms.
template <class Ops>
struct DotInt8 : DotBf16<Ops> {
  using Right = typename Ops::Pair16;
  using Element = uint16_t;
  using Stored = int8_t;
  static constexpr int kPerStep = 4;
  static constexpr int kTerms = 2;
  static constexpr int64_t kColumn = 16 * 16;
  static constexpr int64_t value_step(int64_t) { return 16 * kPerStep; }
  static constexpr bool kSlotScales = true;

  template <int kTerm>
  static COPPICE_INLINE Right right(const std::byte* at) {
    return Ops::widen_pairs(reinterpret_cast<const int8_t*>(at) + 32 * kTerm);
  }
  template <int kTerm>
  static COPPICE_INLINE Right left(const Element* at) {
    return Ops::broadcast_pair(at + 2 * kTerm);
  }
};
