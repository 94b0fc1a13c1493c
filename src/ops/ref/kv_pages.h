// What:    the reference page image: K [P][D], then V [P][D], f32, bf16 or int8, any D. Behind an
//          int8 page's elements stand its scales, K [P] and V [P] f32.
// Owns:    nothing; pages lie in the caller's arena.
// Threads: the caller's.
// Fails:   kv_layout: kUnsupported for other element types or no head_dim. Else never.
#pragma once

#include <span>

#include "ops/backend.h"

namespace coppice::ops::ref {

inline constexpr int32_t kPageSlots = 16;  // P

Expected<KvLayout> kv_layout(DType type, int32_t head_dim);
void zero_pages(const KvArena& arena, std::span<const PageId> ids);
void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                int32_t slots);
void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
               const TensorView& v);
void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
              const KvArena& arena);

// Element d of slot `slot`, and which half of the page it lies in.
enum class Half { kKeys, kValues };
float load(const KvArena& arena, PageId id, Half half, int32_t slot, int32_t d);

}  // namespace coppice::ops::ref
