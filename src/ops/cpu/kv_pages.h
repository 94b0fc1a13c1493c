// What:    the CPU's page image: keys so that scores need no sum across lanes, values so that the
//          weighted sum needs no transpose. P = 16 slots, Dp = D rounded up to 16.
// Owns:    nothing; pages lie in the caller's arena.
// Threads: pure functions; write_kv may run on disjoint rows at once.
// Fails:   kv_layout: kUnsupported names the types and head dims that work. Else never.
//
//            K                       V
//   bf16     [Dp/2][16 slots][2]     [16/2 slots][Dp][2]     pairs along d, pairs along slots
//   f32      [Dp][16 slots]          [16 slots][Dp]
//   int8     [Dp][16 slots]          [Dp/16][16 slots][16], then scales f32: K [16], V [16]
// What lies between D and Dp is never read into a result: any finite value will do there.
#pragma once

#include <span>

#include "ops/backend.h"

namespace coppice::ops::cpu {

inline constexpr int32_t kPageSlots = 16;  // P
inline constexpr int32_t kMaxHeadDim = 256;

constexpr int32_t padded_head_dim(int32_t head_dim) { return (head_dim + 15) / 16 * 16; }

// head_dim: 1 to 256; type: f32, bf16 or i8.
Expected<KvLayout> kv_layout(DType type, int32_t head_dim);
void zero_pages(const KvArena& arena, std::span<const PageId> ids);
void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                int32_t slots);
void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
               const TensorView& v);
// Rows [row_begin, row_end) of k, v [T, Hkv, D].
void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
              const KvArena& arena, int32_t row_begin, int32_t row_end);

}  // namespace coppice::ops::cpu
