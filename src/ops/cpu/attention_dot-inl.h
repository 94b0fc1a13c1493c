// What:    pages of bf16 pairs multiplied as they lie, by a dot product of pairs that accumulates
// in
//          f32. Queries and probabilities are rounded to bf16 pairs; l sums them as rounded.
// Owns:    nothing.
// Threads: any.
// Fails:   never.
//
// Included inside the namespace and target pragmas of an instruction set, like
// attention_fold-inl.h. DotOps beside its F16 arithmetic: Pair16 (16 pairs), load_pairs,
// broadcast_pair, dot(pair, pairs, sum) and put_bf16(f, to), which stores 16 floats rounded to
// nearest even and returns them as rounded.

template <class DotOps>
struct DotBf16 {
  using F16 = typename DotOps::F16;
  using Pair16 = typename DotOps::Pair16;
  using Right = Pair16;
  using Element = uint16_t;
  using Stored = uint16_t;
  static constexpr int kPerStep = 2;
  static constexpr int kTerms = 1;
  static constexpr bool kScaledQ = false;  // rounding q alone keeps what the caller rounded exact

  template <int kTerm>
  static Pair16 right(const std::byte* at) {
    return DotOps::load_pairs(at);
  }
  template <int kTerm>
  static Pair16 left(const Element* at) {
    return DotOps::broadcast_pair(at);
  }
  static F16 product(const Pair16& a, const Pair16& b, const F16& sum) {
    return DotOps::dot(a, b, sum);
  }
  static F16 put(const F16& x, Element* to) { return DotOps::put_bf16(x, to); }
};
