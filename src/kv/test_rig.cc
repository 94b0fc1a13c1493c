#include "kv/test_rig.h"

#include <tuple>

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
  const size_t lists =
      plan.gated() ? static_cast<size_t>(shape_.layers * shape_.kv_heads) : size_t{1};
  ASSERT_EQ(plan.targets.size(), rows * lists);
  ASSERT_EQ(plan.row_last.size(), rows * lists);
  ASSERT_EQ(plan.kv_heads, shape_.kv_heads);
  int32_t next_row = 0;
  for (const Slice& slice : step.slices) {
    const Live& l = live.at(slice.sequence);
    ASSERT_EQ(slice.row_begin, next_row);
    next_row = slice.row_end;
    if (l.tier != nullptr) continue;  // see check_gated
    int64_t slot = 0;                 // the path is covered up to here
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

// The pretended gate: a hash of the prefix and the list, so that a decision depends on the past.
float gate_logit(uint64_t prefix, int32_t list) {
  return static_cast<float>(mix(prefix ^ mix(static_cast<uint64_t>(list) + 77)) % 1000) / 125 - 4;
}

void Rig::check_slot(const ops::KvPart& part, int32_t list, int64_t slot, uint64_t hash) const {
  const int32_t p = shape_.page_slots, d = shape_.head_dim;
  std::vector<float> k(static_cast<size_t>(p * d)), v(k.size());
  PageBackend reader(p);
  const int64_t at = slot - part.list_start(list);
  reader.read_page(cache->arena(), part.list_pages(list)[at / p], p,
                   {k.data(), DType::kF32, {p, d}}, {v.data(), DType::kF32, {p, d}});
  for (int32_t i = 0; i < d; ++i) {
    const size_t element = static_cast<size_t>((at % p) * d + i);
    ASSERT_EQ(k[element], kv_value(hash, list, 0, i)) << "slot " << slot << " list " << list;
    ASSERT_EQ(v[element], kv_value(hash, list, 1, i)) << "slot " << slot << " list " << list;
  }
}

std::vector<std::vector<uint8_t>> Rig::decisions(
    const Live& l, int64_t end, const std::vector<KvCache::Thinned>& thinned) const {
  const int32_t p = shape_.page_slots, lists = shape_.layers * shape_.kv_heads;
  const auto n = static_cast<size_t>(lists);
  std::vector<std::vector<uint8_t>> keep(static_cast<size_t>(end), std::vector<uint8_t>(n));
  for (size_t t = 0; t < keep.size(); ++t) {
    const auto position = static_cast<int64_t>(t);
    const bool gated = l.tier->decode_gate || position < l.prompt;
    const bool guarded = position < l.tier->rule.sinks || (l.tokens[t] & kExactToken) != 0;
    for (int32_t list = 0; list < lists; ++list) {
      const float logit = gate_logit(l.hashes[t], list);
      const bool kept = !gated || logit >= l.tier->rule.threshold;
      keep[t][static_cast<size_t>(list)] = guarded ? ops::kProtectedByte
                                           : kept  ? ops::keep_byte(logit)
                                                   : ops::kDroppedByte;
    }
  }
  std::vector<int64_t> before(n);  // kept at birth before the range: thinning moves by whole pages
  int64_t seen = 0;
  for (const KvCache::Thinned& range : thinned) {
    for (; seen < range.begin; ++seen) {
      for (size_t i = 0; i < n; ++i) before[i] += keep[static_cast<size_t>(seen)][i] > 0 ? 1 : 0;
    }
    for (int32_t epoch = 0; epoch < range.epoch; ++epoch) {
      std::vector<std::tuple<uint8_t, int64_t, size_t>> may;
      std::vector<int64_t> all(n), take(n);
      int64_t closed = 0;
      for (size_t i = 0; i < n; ++i) {
        std::vector<int64_t> own;
        for (int64_t t = range.begin; t < range.end; ++t) {
          if (keep[static_cast<size_t>(t)][i] > ops::kThinnedByte) own.push_back(t);
        }
        // What stands on its last, open page stays.
        const int64_t open = (before[i] % p + std::ssize(own)) % p;
        own.resize(static_cast<size_t>(std::max<int64_t>(0, std::ssize(own) - open)));
        closed += std::ssize(own);
        for (const int64_t t : own) {
          const uint8_t byte = keep[static_cast<size_t>(t)][i];
          if (byte == ops::kProtectedByte || range.end - t < l.tier->rule.window) continue;
          may.emplace_back(byte, t, i);
          ++all[i];
        }
      }
      std::ranges::sort(may);
      for (size_t k = 0; k < may.size() && static_cast<int64_t>(k) < closed / 2; ++k) {
        ++take[std::get<2>(may[k])];
      }
      for (size_t i = 0; i < n; ++i) {
        take[i] = std::min((take[i] + p / 2) / p, all[i] / p) * p;
      }
      for (const auto& [byte, t, i] : may) {
        if (take[i] == 0) continue;
        --take[i];
        keep[static_cast<size_t>(t)][i] = ops::kThinnedByte;
      }
    }
  }
  return keep;
}

void Rig::check_gated(const Live& l, const Slice& slice, const Step& step, int32_t list,
                      const std::vector<std::vector<uint8_t>>& keep) const {
  const ops::AttentionPlan& plan = step.plan;
  const int64_t end = slice.position + (slice.row_end - slice.row_begin);
  std::vector<int64_t> kept, dropped;
  std::vector<std::array<int32_t, 3>> bounds;  // of the slice's rows
  for (int64_t t = 0; t < end; ++t) {
    const uint8_t byte = keep[static_cast<size_t>(t)][static_cast<size_t>(list)];
    if (byte == ops::kDroppedByte) dropped.push_back(t);
    if (byte > ops::kThinnedByte) kept.push_back(t);
    if (t < slice.position) continue;
    const auto visible = std::ranges::upper_bound(dropped, t - l.tier->rule.window);
    bounds.push_back({static_cast<int32_t>(kept.size()),
                      static_cast<int32_t>(visible - dropped.begin()),
                      static_cast<int32_t>(dropped.size())});
  }
  for (int32_t row = slice.row_begin; row < slice.row_end; ++row) {
    const auto& expected = bounds[static_cast<size_t>(row - slice.row_begin)];
    ASSERT_EQ(plan.first(list, row), 0);
    ASSERT_EQ(plan.last(list, row), expected[0])
        << "sequence " << slice.sequence << ", rows from " << slice.position << " to " << end
        << ", row " << row - slice.row_begin << ", prompt " << l.prompt << ", tokens "
        << l.tokens.size();
    ASSERT_EQ(plan.last_dropped(list, row), expected[2]);
    if (expected[1] < expected[2]) {
      ASSERT_EQ(plan.first_dropped(list, row), expected[1]);
    } else {
      ASSERT_EQ(plan.first_dropped(list, row), expected[2]);
    }
  }
  int64_t slot = 0;
  bool dropped_seen = false;
  for (const ops::Segment& segment : plan.segments) {
    if (segment.row_end <= slice.row_begin || slice.row_end <= segment.row_begin) continue;
    ASSERT_FALSE(dropped_seen) << "a segment after the dropped one";
    dropped_seen = segment.dropped;
    for (int32_t i = segment.part_begin; i < segment.part_end; ++i) {
      const ops::KvPart& part = plan.parts[static_cast<size_t>(i)];
      ASSERT_EQ(part.list_start(list) % shape_.page_slots, 0);
      if (segment.dropped) {
        for (int64_t s = bounds.front()[1]; s < std::ssize(dropped); ++s) {
          check_slot(part, list, s, l.hashes[static_cast<size_t>(dropped[static_cast<size_t>(s)])]);
        }
        continue;
      }
      ASSERT_EQ(part.list_start(list), slot);
      slot += part.list_count(list);
      ASSERT_LE(slot, std::ssize(kept));
      for (int64_t s = part.list_start(list); s < slot; ++s) {
        check_slot(part, list, s, l.hashes[static_cast<size_t>(kept[static_cast<size_t>(s)])]);
      }
    }
  }
  ASSERT_TRUE(dropped_seen);
  ASSERT_EQ(slot, std::ssize(kept));
}

void Rig::compute(Step& step) {
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
    if (!step.gate.empty()) {
      std::vector<float> logits(static_cast<size_t>(rows * heads));
      for (const Slice& slice : step.slices) {
        const Live& l = live.at(slice.sequence);
        for (int32_t r = slice.row_begin; r < slice.row_end; ++r) {
          const uint64_t h = l.hashes[static_cast<size_t>(slice.position + r - slice.row_begin)];
          for (int32_t head = 0; head < heads; ++head) {
            logits[static_cast<size_t>(r * heads + head)] = gate_logit(h, layer * heads + head);
          }
        }
      }
      ops::resolve_gate(step.gate, layer, {logits.data(), DType::kF32, {rows, heads}});
    }
    backend.write_kv({k.data(), DType::kF32, {rows, heads, d}},
                     {v.data(), DType::kF32, {rows, heads, d}}, layer, step.plan, cache->arena());
  }
  for (const Slice& slice : step.slices) {
    const Live& l = live.at(slice.sequence);
    if (l.tier == nullptr) continue;
    const auto thinned = cache->footprint(slice.sequence).thinned;
    ASSERT_TRUE(thinned.empty() || l.tier->elastic);
    const int64_t end = slice.position + (slice.row_end - slice.row_begin);
    const auto keep = decisions(l, end, thinned);
    for (int32_t list = 0; list < shape_.layers * heads; ++list) {
      check_gated(l, slice, step, list, keep);
    }
  }
}

}  // namespace coppice::kv
