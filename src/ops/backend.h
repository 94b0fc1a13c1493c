// What:    the narrow waist: everything a model and a cache ask of the hardware, in about 20 coarse
// methods. Owns:    a backend owns its threads and scratch; weights and buffers belong to the
// caller. Threads: one calling thread; a backend may use workers of its own inside a call. Fails:
// loading, allocating and reserving return Expected; a compute method cannot fail. Wrong shapes are
// CHECKs.
//
// Dimension letters, everywhere in this project:
//   T tokens (rows) in the step   S sequences   Hq query heads   Hkv KV heads   G = Hq / Hkv
//   D head_dim   E hidden   F intermediate   V vocabulary   L layers   P page slots   C chunk (64)
// Activations are f32, dense, row-major. At T = 0 every method does nothing.
// Arithmetic: the result of a row depends on that row's inputs alone, never on T, on the rows
// beside it, on the number of threads or on the plan's cuts (architecture, promise 3).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "coppice/error.h"
#include "ops/attention_plan.h"
#include "tensor/tensor.h"

namespace coppice::ops {

// The canonical fold's range: a fresh attention state at every multiple of R slots.
inline constexpr int32_t kFoldRange = 512;
// The paper's chunk: the grid for matching, fold tiles and announcements.
inline constexpr int32_t kChunk = 64;

// A weight matrix [N, K] in the backend's own layout.
class Weight {
 public:
  virtual ~Weight() = default;
  virtual int64_t rows() const = 0;   // N: outputs
  virtual int64_t cols() const = 0;   // K: inputs
  virtual int64_t bytes() const = 0;  // memory it holds
};

// One of several products of the same rows: out [T, N] = x [T, K] . weight^T (+ bias [N] if not
// empty).
struct Product {
  const Weight& weight;
  TensorView bias;
  TensorView out;
};

// How one (kv type, head_dim) is laid out: a page is K and V of P slots of one layer and one KV
// head.
struct KvLayout {
  DType type = DType::kBF16;
  int32_t head_dim = 0;    // D
  int32_t page_slots = 0;  // P
  int64_t page_bytes = 0;
};

// What a slot's K and V [D] hold, with the two scales of int8 and without a page's padding.
inline int64_t kv_slot_bytes(DType type, int32_t head_dim) {
  const int64_t scales = type == DType::kI8 ? 2 * int64_t{sizeof(float)} : 0;
  return 2 * dtype_bytes(type, head_dim) + scales;
}

// The page pool's memory. Page id i lives at base + i * layout.page_bytes.
struct KvArena {
  std::byte* base = nullptr;
  KvLayout layout;
  std::byte* page(PageId id) const { return base + static_cast<int64_t>(id) * layout.page_bytes; }
};

// The largest step that will be asked for, to make room for.
struct StepLimits {
  int32_t rows = 0;         // T
  int64_t slots = 0;        // of any row's path
  int32_t query_heads = 0;  // Hq
  int32_t kv_heads = 0;     // Hkv
  int32_t head_dim = 0;     // D
  int64_t widest = 0;       // the largest K of a product
  bool quantised = false;   // some weights are
};

struct AttentionParams {
  int32_t layer = 0;
  float scale = 1.0f;  // multiplies q.k, usually 1/sqrt(D)
  int32_t window = 0;  // > 0: a row sees only its last `window` visible slots
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string_view name() const = 0;  // "ref", "cpu"
  // What was probed and chosen, for `coppice inspect` and the log: one line per fact.
  virtual std::string describe() const = 0;

  // --- memory
  virtual Expected<Buffer> allocate(int64_t bytes) = 0;
  // Makes all scratch that steps within the limits need, whatever weights are loaded: after it such
  // a step allocates nothing. kTooLarge where there is no such memory. Optional: without it,
  // and beyond the limits, scratch grows with the calls, where memory that ends is a CHECK.
  virtual Status reserve(const StepLimits& limits) { return {}; }
  virtual int64_t scratch_bytes() const { return 0; }  // held now
  // Copies w [N, K] (F32, F16, BF16 or a quantised type, on the host) into the backend's layout and
  // compute type.
  virtual Expected<std::unique_ptr<Weight>> load_weight(const TensorView& w) = 0;
  // The least that it holds of a matrix of that type and shape; known before there is one.
  virtual int64_t least_weight_bytes(DType type, const Shape& shape) const = 0;
  // What lies beside it only while it is loaded, as far as that is known before.
  virtual int64_t loading_bytes(DType type, const Shape& shape) const { return 0; }
  // kUnsupported names the types and head dims that work.
  virtual Expected<KvLayout> kv_layout(DType type, int32_t head_dim) = 0;
  virtual void zero_pages(const KvArena& arena, std::span<const PageId> ids) = 0;
  // Slots [from_slot, from_slot + slots) of `from` become the slots from `to_slot` on of `to`, in
  // ascending order: inside one page they may move down.
  virtual void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to,
                          int32_t to_slot, int32_t slots) = 0;
  // Unpacks slots [0, slots) of a page to k, v [slots, D] f32 (tests, saved prefixes).
  virtual void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                         const TensorView& v) = 0;

  // --- dense
  // out [T, E] = table[ids[t], :]
  virtual void embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) = 0;
  // out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight   x, out [R, W], weight [W]; in
  // place allowed
  virtual void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                        const TensorView& out) = 0;
  // out [T, N] = x [T, K] . w^T (+ bias [N] if not empty)
  virtual void matmul(const TensorView& x, const Weight& w, const TensorView& bias,
                      const TensorView& out) = 0;
  // Several products of the same x: what they need of it is made once.
  virtual void matmul_each(const TensorView& x, std::span<const Product> products) {
    for (const Product& p : products) matmul(x, p.weight, p.bias, p.out);
  }
  // x += y, elementwise, same shape
  virtual void add(const TensorView& x, const TensorView& y) = 0;
  // x += y, then out = rms_norm(x); out may be y
  virtual void add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight,
                            float eps, const TensorView& out) {
    add(x, y);
    rms_norm(x, weight, eps, out);
  }
  // out [T, F] = silu(gate) * up; out may be gate or up
  virtual void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) = 0;
  // Rotates the halves in place (the Llama pairing i, i + D/2): x [T, H, D], cos and sin [T, D/2].
  virtual void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) = 0;
  // out [R, W] = x[rows[r], :]
  virtual void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                           const TensorView& out) = 0;

  // --- keys, values, attention
  // Stores k, v [T, Hkv, D] (k already rotated) at plan.targets, rounded to the page type; int8
  // with a scale per slot and KV head for K, and one for V. Pages hold finite values only
  // (kv_value.h): what is beyond the type's largest is stored as that, NaN as 0. A token whose
  // activations are not finite shows it in its own row, through the residual stream, and not in the
  // rows that merely share a page with it.
  virtual void write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                        const AttentionPlan& plan, const KvArena& arena) = 0;
  // rope of q [T, Hq, D] and k, then write_kv.
  virtual void rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                             const TensorView& cos, const TensorView& sin, int32_t layer,
                             const AttentionPlan& plan, const KvArena& arena) {
    rope(q, cos, sin);
    rope(k, cos, sin);
    write_kv(k, v, layer, plan, arena);
  }
  // out [T, Hq, D] = softmax(scale * q k^T over the row's visible slots) v, K and V as stored in
  // pages. A row that sees no slot yields zeros. Source: ChunkAttention 2.1; fold: architecture 1,
  // promise 3 (a). A gated row sees its kept slots, then its dropped ones (architecture 5), which
  // are one range of the fold whatever their number; AttentionParams::window is 0 then.
  virtual void attention(const TensorView& q, const AttentionParams& params,
                         const AttentionPlan& plan, const KvArena& arena,
                         const TensorView& out) = 0;

  // Waits for the results of earlier calls and copies x to the host.
  virtual void to_host(const TensorView& x, void* host) = 0;
};

}  // namespace coppice::ops
