// What:    what a kernel's two innermost operations reach when nothing else is done: the ceilings
//          that its time is measured against, run in the same process.
// Owns:    nothing.
// Threads: any.
// Fails:   never.
//
// Included like attention_fold-inl.h.

// A register tile's products, `steps` times, on operands that stay where they are. Returns the
// floating-point operations done; `sink` keeps the result alive.
template <class Ops, class Pages>
double burn_products(int64_t steps, float* sink) {
  constexpr int kN = Ops::kRows, kC = Ops::columns(kN);
  // Different everywhere, so that no two of them can be computed as one.
  alignas(64) float start[kN * kC * 16];
  for (int i = 0; i < kN * kC * 16; ++i) start[i] = *sink + static_cast<float>(i);
  alignas(64) typename Pages::Element left[16] = {};
  alignas(64) const std::byte memory[64] = {};
  const auto a = Pages::template left<0>(left);
  const auto b = Pages::template right<0>(memory);
  typename Ops::F16 sum[kN * kC];
  COPPICE_UNROLL
  for (int i = 0; i < kN * kC; ++i) sum[i] = Ops::load(start + 16 * i);
  for (int64_t step = 0; step < steps; ++step) {
    COPPICE_UNROLL
    for (int i = 0; i < kN * kC; ++i) sum[i] = Pages::product(a, b, sum[i]);
  }
  COPPICE_UNROLL
  for (int i = 0; i < kN * kC; ++i) Ops::store(sum[i], start + 16 * i);
  *sink += std::accumulate(start, start + kN * kC * 16, 0.0f);
  return static_cast<double>(steps) * kN * kC * 16 * 2 * (Pages::kPerStep / Pages::kTerms);
}

// Base-2 exponentials, eight groups of 16 at once: four wait for one another. Returns how many.
template <class Ops>
double burn_exponentials(int64_t steps, float* sink) {
  constexpr int kGroups = 8;
  alignas(64) float start[kGroups * 16];
  for (int i = 0; i < kGroups * 16; ++i) start[i] = -0.01f * static_cast<float>(i);
  typename Ops::F16 x[kGroups];
  COPPICE_UNROLL
  for (int i = 0; i < kGroups; ++i) x[i] = Ops::load(start + 16 * i);
  for (int64_t step = 0; step < steps; ++step) {
    COPPICE_UNROLL
    for (int i = 0; i < kGroups; ++i) x[i] = Ops::exp2(x[i]);
  }
  COPPICE_UNROLL
  for (int i = 0; i < kGroups; ++i) Ops::store(x[i], start + 16 * i);
  *sink += std::accumulate(start, start + kGroups * 16, 0.0f);
  return static_cast<double>(steps) * kGroups * 16;
}
