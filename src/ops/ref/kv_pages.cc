#include "ops/ref/kv_pages.h"

#include <algorithm>
#include <cstring>

#include "ops/kv_value.h"
#include "ops/op_checks.h"

namespace coppice::ops::ref {
namespace {

std::byte* element(const KvArena& arena, PageId id, Half half, int32_t slot, int32_t d) {
  const KvLayout& layout = arena.layout;
  DCHECK(slot >= 0 && slot < layout.page_slots && d >= 0 && d < layout.head_dim);
  const int64_t row = (half == Half::kValues ? layout.page_slots : 0) + slot;
  return arena.page(id) + dtype_bytes(layout.type, row * layout.head_dim + d);
}

// Of an int8 page.
float* scales(const KvArena& arena, PageId id, Half half) {
  std::byte* behind = arena.page(id) + int64_t{2} * kPageSlots * arena.layout.head_dim;
  return reinterpret_cast<float*>(behind) + (half == Half::kValues ? kPageSlots : 0);
}

void store_int8_row(const KvArena& arena, PageId id, Half half, int32_t slot, const float* values) {
  const int32_t dim = arena.layout.head_dim;
  auto* out = reinterpret_cast<int8_t*>(element(arena, id, half, slot, 0));
  const float scale = int8_scale(values, dim);
  scales(arena, id, half)[slot] = scale;
  for (int32_t d = 0; d < dim; ++d) out[d] = to_int8(values[d], scale);
}

void store_row(const KvArena& arena, PageId id, Half half, int32_t slot, const float* values) {
  if (arena.layout.type == DType::kI8) return store_int8_row(arena, id, half, slot, values);
  std::byte* out = element(arena, id, half, slot, 0);
  for (int32_t d = 0; d < arena.layout.head_dim; ++d) {
    if (arena.layout.type == DType::kF32) {
      store_kv(values[d], reinterpret_cast<float*>(out) + d);
    } else {
      store_kv(values[d], reinterpret_cast<bf16*>(out) + d);
    }
  }
}

}  // namespace

Expected<KvLayout> kv_layout(DType type, int32_t head_dim) {
  TRY_STATUS(check_kv_type(type));
  if (head_dim <= 0) {
    return fail(ErrorCode::kUnsupported,
                "head_dim " + std::to_string(head_dim) + " is not supported (any from 1 up is)");
  }
  return KvLayout{type, head_dim, kPageSlots, kPageSlots * kv_slot_bytes(type, head_dim)};
}

void zero_pages(const KvArena& arena, std::span<const PageId> ids) {
  for (const PageId id : ids) {
    std::memset(arena.page(id), 0, static_cast<size_t>(arena.layout.page_bytes));
  }
}

void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                int32_t slots) {
  check_copy_slots(arena, from, from_slot, to, to_slot, slots);
  if (slots == 0) return;
  const auto bytes = dtype_bytes(arena.layout.type, int64_t{slots} * arena.layout.head_dim);
  for (const Half half : {Half::kKeys, Half::kValues}) {
    std::memmove(element(arena, to, half, to_slot, 0), element(arena, from, half, from_slot, 0),
                 static_cast<size_t>(bytes));
    if (arena.layout.type != DType::kI8) continue;
    std::memmove(scales(arena, to, half) + to_slot, scales(arena, from, half) + from_slot,
                 static_cast<size_t>(slots) * sizeof(float));
  }
}

void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
               const TensorView& v) {
  const int32_t dim = arena.layout.head_dim;
  CHECK(slots >= 0 && slots <= arena.layout.page_slots);
  CHECK(k.shape() == (Shape{slots, dim}) && v.shape() == k.shape());
  for (int32_t slot = 0; slot < slots; ++slot) {
    for (int32_t d = 0; d < dim; ++d) {
      k.f32()[slot * dim + d] = load(arena, id, Half::kKeys, slot, d);
      v.f32()[slot * dim + d] = load(arena, id, Half::kValues, slot, d);
    }
  }
}

void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
              const KvArena& arena) {
  check_write_kv(k, v, layer, plan, arena);
  const int64_t dim = arena.layout.head_dim;
  for (int32_t row = 0; row < plan.rows; ++row) {
    for (int32_t head = 0; head < plan.kv_heads; ++head) {
      const int32_t list = layer * plan.kv_heads + head;
      const KvTarget target = plan.target(list, row);
      const KvPart& part = plan.parts[static_cast<size_t>(target.part)];
      const int32_t at = target.slot - part.list_start(list);
      CHECK(at >= 0 && at < part.list_count(list));
      const PageId page = part.list_pages(list)[at / arena.layout.page_slots];
      const int32_t slot = at % arena.layout.page_slots;
      const int64_t from = (int64_t{row} * plan.kv_heads + head) * dim;
      store_row(arena, page, Half::kKeys, slot, k.f32() + from);
      store_row(arena, page, Half::kValues, slot, v.f32() + from);
    }
  }
}

float load(const KvArena& arena, PageId id, Half half, int32_t slot, int32_t d) {
  const std::byte* from = element(arena, id, half, slot, d);
  switch (arena.layout.type) {
    case DType::kF32:
      return *reinterpret_cast<const float*>(from);
    case DType::kI8:
      return static_cast<float>(*reinterpret_cast<const int8_t*>(from)) *
             scales(arena, id, half)[slot];
    default:
      return to_float(*reinterpret_cast<const bf16*>(from));
  }
}

}  // namespace coppice::ops::ref
