#include "ops/cpu/kv_pages.h"

#include <algorithm>
#include <cstring>

#include "ops/kv_value.h"
#include "ops/op_checks.h"

namespace coppice::ops::cpu {
namespace {

// Where the elements of one slot lie in a page, in elements.
struct Image {
  explicit Image(const KvLayout& layout)
      : dim(padded_head_dim(layout.head_dim)), pair(layout.type == DType::kBF16 ? 2 : 1) {}
  int64_t key(int32_t slot, int32_t d) const {
    return (int64_t{d} / pair * kPageSlots + slot) * pair + d % pair;
  }
  int64_t value(int32_t slot, int32_t d) const {
    return int64_t{kPageSlots} * dim + (int64_t{slot} / pair * dim + d) * pair + slot % pair;
  }
  int32_t dim;   // Dp
  int32_t pair;  // elements that lie together
};

float load(float x) { return x; }
float load(bf16 x) { return to_float(x); }

template <class T>
void write_slot(const Image& image, int32_t head_dim, T* page, int32_t slot, const float* k,
                const float* v) {
  for (int32_t d = 0; d < head_dim; ++d) store_kv(k[d], page + image.key(slot, d));
  for (int32_t d = 0; d < head_dim; ++d) store_kv(v[d], page + image.value(slot, d));
}

template <class T>
void read_slots(const Image& image, int32_t head_dim, const T* page, int32_t slots, float* k,
                float* v) {
  for (int32_t slot = 0; slot < slots; ++slot) {
    for (int32_t d = 0; d < head_dim; ++d) {
      k[slot * head_dim + d] = load(page[image.key(slot, d)]);
      v[slot * head_dim + d] = load(page[image.value(slot, d)]);
    }
  }
}

template <class T>
void copy_elements(const Image& image, const T* from, T* to, int32_t slots) {
  for (int32_t d = 0; d < image.dim; d += image.pair) {
    std::copy_n(from + image.key(0, d), int64_t{slots} * image.pair, to + image.key(0, d));
  }
  const int32_t whole = slots / image.pair * image.pair;
  std::copy_n(from + image.value(0, 0), int64_t{whole} * image.dim, to + image.value(0, 0));
  if (whole == slots) return;
  for (int32_t d = 0; d < image.dim; ++d) to[image.value(whole, d)] = from[image.value(whole, d)];
}

bool is_bf16(const KvArena& arena) { return arena.layout.type == DType::kBF16; }

template <class T>
T* elements(const KvArena& arena, PageId id) {
  return reinterpret_cast<T*>(arena.page(id));
}

}  // namespace

Expected<KvLayout> kv_layout(DType type, int32_t head_dim) {
  if (type != DType::kF32 && type != DType::kBF16) {
    return fail(ErrorCode::kUnsupported, "pages of type " + std::string(dtype_name(type)) +
                                             " are not supported (f32 and bf16 are)");
  }
  if (head_dim < 1 || head_dim > kMaxHeadDim) {
    return fail(ErrorCode::kUnsupported, "head_dim " + std::to_string(head_dim) +
                                             " is not supported (1 to " +
                                             std::to_string(kMaxHeadDim) + " is)");
  }
  const int64_t elements = int64_t{2} * kPageSlots * padded_head_dim(head_dim);
  return KvLayout{type, head_dim, kPageSlots, dtype_bytes(type, elements)};
}

void zero_pages(const KvArena& arena, std::span<const PageId> ids) {
  for (const PageId id : ids) {
    std::memset(arena.page(id), 0, static_cast<size_t>(arena.layout.page_bytes));
  }
}

void copy_slots(const KvArena& arena, PageId from, PageId to, int32_t slots) {
  CHECK(slots >= 0 && slots <= kPageSlots);
  if (slots == 0 || from == to) return;
  const Image image(arena.layout);
  if (is_bf16(arena)) {
    copy_elements(image, elements<bf16>(arena, from), elements<bf16>(arena, to), slots);
  } else {
    copy_elements(image, elements<float>(arena, from), elements<float>(arena, to), slots);
  }
}

void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
               const TensorView& v) {
  const int32_t dim = arena.layout.head_dim;
  CHECK(slots >= 0 && slots <= kPageSlots);
  CHECK(k.shape() == (Shape{slots, dim}) && v.shape() == k.shape());
  const Image image(arena.layout);
  if (is_bf16(arena)) {
    read_slots(image, dim, elements<bf16>(arena, id), slots, k.f32(), v.f32());
  } else {
    read_slots(image, dim, elements<float>(arena, id), slots, k.f32(), v.f32());
  }
}

void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
              const KvArena& arena, int32_t row_begin, int32_t row_end) {
  check_write_kv(k, v, plan, arena);
  CHECK(row_begin >= 0 && row_end <= plan.rows);
  const Image image(arena.layout);
  const int32_t dim = arena.layout.head_dim;
  for (int32_t row = row_begin; row < row_end; ++row) {
    const KvTarget target = plan.targets[static_cast<size_t>(row)];
    const KvPart& part = plan.parts[static_cast<size_t>(target.part)];
    for (int32_t head = 0; head < plan.kv_heads; ++head) {
      const int32_t list = layer * plan.kv_heads + head;
      const int32_t at = target.slot - part.list_start(list);
      CHECK(at >= 0 && at < part.list_count(list));
      const PageId page = part.list_pages(list)[at / kPageSlots];
      const int64_t from = (int64_t{row} * plan.kv_heads + head) * dim;
      const float* key = k.f32() + from;
      const float* value = v.f32() + from;
      if (is_bf16(arena)) {
        write_slot(image, dim, elements<bf16>(arena, page), at % kPageSlots, key, value);
      } else {
        write_slot(image, dim, elements<float>(arena, page), at % kPageSlots, key, value);
      }
    }
  }
}

}  // namespace coppice::ops::cpu
