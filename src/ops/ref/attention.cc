#include "ops/ref/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "ops/op_checks.h"
#include "ops/ref/kv_pages.h"

namespace coppice::ops::ref {
namespace {

struct SlotRef {
  PageId page;
  int32_t slot;  // inside the page
};

// Slots [first, last) of the row's path, or of its dropped list, in order.
void gather(const AttentionPlan& plan, bool dropped, int32_t list, int32_t row, int32_t first,
            int32_t last, int32_t page_slots, std::vector<SlotRef>& visible) {
  for (const Segment& segment : plan.segments) {
    if (segment.dropped != dropped || row < segment.row_begin || row >= segment.row_end) continue;
    for (int32_t p = segment.part_begin; p < segment.part_end; ++p) {
      const KvPart& part = plan.parts[static_cast<size_t>(p)];
      const int32_t start = part.list_start(list);
      const int32_t end = std::min(last, start + part.list_count(list));
      for (int32_t slot = std::max(first, start); slot < end; ++slot) {
        const int32_t at = slot - start;
        visible.push_back({part.list_pages(list)[at / page_slots], at % page_slots});
      }
    }
  }
}

// What a row sees: kept slots, then dropped ones.
void gather_visible(const AttentionPlan& plan, int32_t list, int32_t row, int32_t window,
                    int32_t page_slots, std::vector<SlotRef>& visible) {
  visible.clear();
  const int32_t last = plan.last(list, row);
  int32_t first = plan.first(list, row);
  if (window > 0) first = std::max(first, last - window);
  gather(plan, false, list, row, first, last, page_slots, visible);
  if (!plan.gated()) return;
  gather(plan, true, list, row, plan.first_dropped(list, row), plan.last_dropped(list, row),
         page_slots, visible);
}

// out [D] = softmax(scale * q . k) v over the visible slots.
void attend(const float* q, float scale, const KvArena& arena, const std::vector<SlotRef>& visible,
            std::vector<double>& weights, float* out) {
  const int32_t dim = arena.layout.head_dim;
  weights.clear();
  for (const SlotRef& ref : visible) {
    double dot = 0;
    for (int32_t d = 0; d < dim; ++d) {
      dot += double{q[d]} * double{load(arena, ref.page, Half::kKeys, ref.slot, d)};
    }
    weights.push_back(dot * double{scale});
  }
  const double top = visible.empty() ? 0 : *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - top);
  for (int32_t d = 0; d < dim; ++d) {
    double mix = 0;
    for (size_t i = 0; i < visible.size(); ++i) {
      const SlotRef& ref = visible[i];
      mix += weights[i] * double{load(arena, ref.page, Half::kValues, ref.slot, d)};
    }
    out[d] = visible.empty() ? 0.0f : static_cast<float>(mix / sum);
  }
}

}  // namespace

void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
               const KvArena& arena, const TensorView& out) {
  check_attention(q, params, plan, arena, out);
  const int64_t query_heads = q.shape()[1];
  const int64_t group = query_heads / plan.kv_heads;
  const int64_t dim = arena.layout.head_dim;
  std::vector<SlotRef> visible;
  std::vector<double> weights;
  for (int32_t row = 0; row < plan.rows; ++row) {
    for (int32_t kv_head = 0; kv_head < plan.kv_heads; ++kv_head) {
      const int32_t list = params.layer * plan.kv_heads + kv_head;
      gather_visible(plan, list, row, params.window, arena.layout.page_slots, visible);
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        const int64_t at = (row * query_heads + head) * dim;
        attend(q.f32() + at, params.scale, arena, visible, weights, out.f32() + at);
      }
    }
  }
}

}  // namespace coppice::ops::ref
