#include "ops/cpu/kv_pages.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "ops/kv_value.h"
#include "ops/op_checks.h"

namespace coppice::ops::cpu {
namespace {

// Where the elements of one slot lie in a page of T, in elements.
template <class T>
struct Image {
  explicit Image(const KvLayout& layout)
      : dim(padded_head_dim(layout.head_dim)), column(kIsInt8 ? 16 : dim) {}
  int64_t key(int32_t slot, int32_t d) const {
    return (int64_t{d} / kPair * kPageSlots + slot) * kPair + d % kPair;
  }
  int64_t value(int32_t slot, int32_t d) const {
    const int32_t first = kIsInt8 ? d / 16 * 16 : 0;  // of the columns that lie together
    return int64_t{kPageSlots} * (dim + first) +
           (int64_t{slot} / kPair * column + d - first) * kPair + slot % kPair;
  }
  static constexpr bool kIsInt8 = std::is_same_v<T, int8_t>;
  static constexpr int32_t kPair = std::is_same_v<T, bf16> ? 2 : 1;  // elements that lie together
  int32_t dim;                                                       // Dp
  int32_t column;  // elements of a value that lie together, times kPair slots
};

template <class T>
T* elements(const KvArena& arena, PageId id) {
  return reinterpret_cast<T*>(arena.page(id));
}

// Of an int8 page: K [16], V [16].
float* scales(const KvArena& arena, PageId id) {
  const int64_t behind = int64_t{2} * kPageSlots * padded_head_dim(arena.layout.head_dim);
  return reinterpret_cast<float*>(arena.page(id) + behind);
}

// --- one slot in

template <class T>
void write_slot(const KvArena& arena, PageId id, int32_t slot, const float* k, const float* v) {
  const Image<T> image(arena.layout);
  T* page = elements<T>(arena, id);
  for (int32_t d = 0; d < arena.layout.head_dim; ++d) store_kv(k[d], page + image.key(slot, d));
  for (int32_t d = 0; d < arena.layout.head_dim; ++d) store_kv(v[d], page + image.value(slot, d));
}

template <>
void write_slot<int8_t>(const KvArena& arena, PageId id, int32_t slot, const float* k,
                        const float* v) {
  const Image<int8_t> image(arena.layout);
  const int32_t dim = arena.layout.head_dim;
  auto* page = elements<int8_t>(arena, id);
  const float k_scale = int8_scale(k, dim), v_scale = int8_scale(v, dim);
  for (int32_t d = 0; d < dim; ++d) page[image.key(slot, d)] = to_int8(k[d], k_scale);
  for (int32_t d = 0; d < dim; ++d) page[image.value(slot, d)] = to_int8(v[d], v_scale);
  scales(arena, id)[slot] = k_scale;
  scales(arena, id)[kPageSlots + slot] = v_scale;
}

// --- slots out

float load(float x) { return x; }
float load(bf16 x) { return to_float(x); }
float load(int8_t x) { return x; }

template <class T>
void read_slots(const KvArena& arena, PageId id, int32_t slots, float* k, float* v) {
  const Image<T> image(arena.layout);
  const int32_t dim = arena.layout.head_dim;
  const T* page = elements<T>(arena, id);
  for (int32_t slot = 0; slot < slots; ++slot) {
    float k_scale = 1.0f, v_scale = 1.0f;
    if constexpr (image.kIsInt8) {
      k_scale = scales(arena, id)[slot];
      v_scale = scales(arena, id)[kPageSlots + slot];
    }
    for (int32_t d = 0; d < dim; ++d) {
      k[slot * dim + d] = load(page[image.key(slot, d)]) * k_scale;
      v[slot * dim + d] = load(page[image.value(slot, d)]) * v_scale;
    }
  }
}

// --- slots copied

// Inside one page the two runs may overlap.
template <class T>
void move_run(const T* from, T* to, int64_t count) {
  std::memmove(to, from, static_cast<size_t>(count) * sizeof(T));
}

template <class T>
void copy_elements(const KvArena& arena, PageId from_id, int32_t from_slot, PageId to_id,
                   int32_t to_slot, int32_t slots) {
  const Image<T> image(arena.layout);
  const T* from = elements<T>(arena, from_id);
  T* to = elements<T>(arena, to_id);
  for (int32_t d = 0; d < image.dim; d += image.kPair) {
    move_run(from + image.key(from_slot, d), to + image.key(to_slot, d), slots * image.kPair);
  }
  const auto copy_value = [&](int32_t i) {
    for (int32_t d = 0; d < image.dim; ++d) {
      to[image.value(to_slot + i, d)] = from[image.value(from_slot + i, d)];
    }
  };
  // Slots lie in pairs: whole pairs stay together where both runs begin on the same side of one.
  const int32_t side = from_slot % image.kPair;
  const int32_t before = side == to_slot % image.kPair ? std::min(side, slots) : slots;
  const int32_t whole = (slots - before) / image.kPair * image.kPair;
  for (int32_t i = 0; i < before; ++i) copy_value(i);
  for (int32_t d = 0; d < image.dim; d += image.column) {
    move_run(from + image.value(from_slot + before, d), to + image.value(to_slot + before, d),
             int64_t{whole} * image.column);
  }
  for (int32_t i = before + whole; i < slots; ++i) copy_value(i);
  if constexpr (image.kIsInt8) {
    for (const int32_t at : {0, kPageSlots}) {
      move_run(scales(arena, from_id) + at + from_slot, scales(arena, to_id) + at + to_slot, slots);
    }
  }
}

// fn(an element of the pages' type)
template <class Fn>
void with_element(const KvArena& arena, const Fn& fn) {
  switch (arena.layout.type) {
    case DType::kF32:
      return fn(float());
    case DType::kI8:
      return fn(int8_t());
    default:
      return fn(bf16());
  }
}

}  // namespace

Expected<KvLayout> kv_layout(DType type, int32_t head_dim) {
  TRY_STATUS(check_kv_type(type));
  if (head_dim < 1 || head_dim > kMaxHeadDim) {
    return fail(ErrorCode::kUnsupported, "head_dim " + std::to_string(head_dim) +
                                             " is not supported (1 to " +
                                             std::to_string(kMaxHeadDim) + " is)");
  }
  const int64_t bytes = kPageSlots * kv_slot_bytes(type, padded_head_dim(head_dim));
  return KvLayout{type, head_dim, kPageSlots, bytes};
}

void zero_pages(const KvArena& arena, std::span<const PageId> ids) {
  for (const PageId id : ids) {
    std::memset(arena.page(id), 0, static_cast<size_t>(arena.layout.page_bytes));
  }
}

void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                int32_t slots) {
  check_copy_slots(arena, from, from_slot, to, to_slot, slots);
  with_element(arena, [&](auto x) {
    copy_elements<decltype(x)>(arena, from, from_slot, to, to_slot, slots);
  });
}

void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
               const TensorView& v) {
  const int32_t dim = arena.layout.head_dim;
  CHECK(slots >= 0 && slots <= kPageSlots);
  CHECK(k.shape() == (Shape{slots, dim}) && v.shape() == k.shape());
  with_element(arena, [&](auto x) { read_slots<decltype(x)>(arena, id, slots, k.f32(), v.f32()); });
}

void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
              const KvArena& arena, int32_t row_begin, int32_t row_end) {
  check_write_kv(k, v, layer, plan, arena);
  CHECK(row_begin >= 0 && row_end <= plan.rows);
  const int32_t dim = arena.layout.head_dim;
  for (int32_t row = row_begin; row < row_end; ++row) {
    for (int32_t head = 0; head < plan.kv_heads; ++head) {
      const int32_t list = layer * plan.kv_heads + head;
      const KvTarget target = plan.target(list, row);
      const KvPart& part = plan.parts[static_cast<size_t>(target.part)];
      const int32_t at = target.slot - part.list_start(list);
      CHECK(at >= 0 && at < part.list_count(list));
      const PageId page = part.list_pages(list)[at / kPageSlots];
      const int64_t from = (int64_t{row} * plan.kv_heads + head) * dim;
      const float* key = k.f32() + from;
      const float* value = v.f32() + from;
      with_element(arena, [&](auto x) {
        write_slot<decltype(x)>(arena, page, at % kPageSlots, key, value);
      });
    }
  }
}

}  // namespace coppice::ops::cpu
