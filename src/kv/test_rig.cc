#include "kv/test_rig.h"

namespace coppice::kv {

Soak& soak() {
  static Soak options;
  return options;
}

void Rig::check_slots(const Live& l, const ops::KvPart& part, int64_t from, int64_t to) const {
  const int32_t p = shape_.page_slots;
  const int32_t d = shape_.head_dim;
  std::vector<float> k(static_cast<size_t>(p * d)), v(k.size());
  PageBackend reader(p);
  for (int32_t list = 0; list < shape_.layers * shape_.kv_heads; ++list) {
    for (int64_t page = from / p; page * p < to; ++page) {
      const PageId id = part.list_pages(list)[page - part.start / p];
      reader.read_page(cache->arena(), id, p, {k.data(), DType::kF32, {p, d}},
                       {v.data(), DType::kF32, {p, d}});
      for (int64_t slot = std::max(from, page * p); slot < std::min(to, (page + 1) * p); ++slot) {
        const uint64_t h = l.hashes[static_cast<size_t>(slot)];
        for (int32_t i = 0; i < d; ++i) {
          const size_t at = static_cast<size_t>((slot % p) * d + i);
          ASSERT_EQ(k[at], kv_value(h, list, 0, i)) << "slot " << slot << " list " << list;
          ASSERT_EQ(v[at], kv_value(h, list, 1, i)) << "slot " << slot << " list " << list;
        }
      }
    }
  }
}

void Rig::check_plan(const Step& step) {
  const ops::AttentionPlan& plan = step.plan;
  const size_t rows = static_cast<size_t>(plan.rows);
  ASSERT_EQ(step.tokens.size(), rows);
  ASSERT_EQ(step.positions.size(), rows);
  ASSERT_EQ(plan.targets.size(), rows);
  ASSERT_EQ(plan.row_last.size(), rows);
  ASSERT_EQ(plan.kv_heads, shape_.kv_heads);
  int32_t next_row = 0;
  for (const Slice& slice : step.slices) {
    const Live& l = live.at(slice.sequence);
    ASSERT_EQ(slice.row_begin, next_row);
    next_row = slice.row_end;
    int64_t slot = 0;  // the path is covered up to here
    for (const ops::Segment& segment : plan.segments) {
      ASSERT_LT(segment.row_begin, segment.row_end);
      ASSERT_LT(segment.part_begin, segment.part_end);
      const bool holds = segment.row_begin <= slice.row_begin && slice.row_end <= segment.row_end;
      if (!holds) {
        ASSERT_TRUE(segment.row_end <= slice.row_begin || slice.row_end <= segment.row_begin);
        continue;
      }
      for (int32_t i = segment.part_begin; i < segment.part_end; ++i) {
        const ops::KvPart& part = plan.parts[static_cast<size_t>(i)];
        ASSERT_EQ(part.start, slot);
        ASSERT_EQ(part.start % shape_.page_slots, 0);
        ASSERT_GT(part.count, 0);
        slot += part.count;
        check_slots(l, part, part.start, std::min(slot, slice.position));
        for (int32_t r = slice.row_begin; r < slice.row_end; ++r) {
          const ops::KvTarget target = plan.targets[static_cast<size_t>(r)];
          const bool inside = target.slot >= part.start && target.slot < slot;
          ASSERT_EQ(target.part == i, inside) << "row " << r << " part " << i;
        }
      }
    }
    ASSERT_EQ(slot, slice.position + (slice.row_end - slice.row_begin));
    for (int32_t r = slice.row_begin; r < slice.row_end; ++r) {
      const int64_t position = slice.position + r - slice.row_begin;
      const size_t row = static_cast<size_t>(r);
      ASSERT_EQ(step.positions[row], position);
      ASSERT_EQ(step.tokens[row], l.tokens[static_cast<size_t>(position)]);
      ASSERT_EQ(plan.targets[row].slot, position);
      ASSERT_EQ(plan.first(0, r), 0);
      ASSERT_EQ(plan.last(0, r), position + 1);
    }
  }
  ASSERT_EQ(next_row, plan.rows);
}

void Rig::compute(const Step& step) {
  const int32_t rows = step.plan.rows, heads = shape_.kv_heads, d = shape_.head_dim;
  std::vector<float> k(static_cast<size_t>(rows * heads * d)), v(k.size());
  for (int32_t layer = 0; layer < shape_.layers; ++layer) {
    for (const Slice& slice : step.slices) {
      const Live& l = live.at(slice.sequence);
      for (int32_t r = slice.row_begin; r < slice.row_end; ++r) {
        const uint64_t h = l.hashes[static_cast<size_t>(slice.position + r - slice.row_begin)];
        for (int32_t head = 0; head < heads; ++head) {
          for (int32_t i = 0; i < d; ++i) {
            const size_t at = static_cast<size_t>((r * heads + head) * d + i);
            k[at] = kv_value(h, layer * heads + head, 0, i);
            v[at] = kv_value(h, layer * heads + head, 1, i);
          }
        }
      }
    }
    backend.write_kv({k.data(), DType::kF32, {rows, heads, d}},
                     {v.data(), DType::kF32, {rows, heads, d}}, layer, step.plan, cache->arena());
  }
}

}  // namespace coppice::kv
