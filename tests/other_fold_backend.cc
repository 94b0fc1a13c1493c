#include "other_fold_backend.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "ops/passing_backend.h"

namespace coppice {
namespace {

using ops::AttentionParams;
using ops::AttentionPlan;
using ops::KvArena;
using ops::KvPart;
using ops::Segment;

class OtherFoldBackend : public ops::PassingBackend {
 public:
  OtherFoldBackend(std::unique_ptr<ops::Backend> inner, FoldCut cut)
      : ops::PassingBackend(std::move(inner)), cut_(cut) {}

  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override;

 private:
  struct State {
    float most = -std::numeric_limits<float>::infinity();
    float sum = 0.0f;
    std::vector<float> mean;  // [D], not yet divided by sum
  };
  void read_part(const KvPart& part, int32_t list, const KvArena& arena);
  int32_t cut_of(const AttentionPlan& plan, int32_t part, int32_t list) const;
  State fold(const float* query, float scale, int32_t begin, int32_t end, int32_t dim) const;
  static void merge(State& into, const State& more);

  FoldCut cut_;
  std::vector<float> k_, v_;  // [slots of the part, D]
};

void OtherFoldBackend::read_part(const KvPart& part, int32_t list, const KvArena& arena) {
  const int32_t dim = arena.layout.head_dim, page = arena.layout.page_slots;
  const int32_t count = part.list_count(list);
  k_.assign(static_cast<size_t>(count) * static_cast<size_t>(dim), 0.0f);
  v_ = k_;
  for (int32_t slot = 0; slot < count; slot += page) {
    const int32_t slots = std::min(page, count - slot);
    const size_t at = static_cast<size_t>(slot) * static_cast<size_t>(dim);
    inner_->read_page(arena, part.list_pages(list)[slot / page], slots,
                      TensorView(k_.data() + at, DType::kF32, {slots, dim}),
                      TensorView(v_.data() + at, DType::kF32, {slots, dim}));
  }
}

// Where the list's slots of a part are cut in two: before the first that this step writes, or
// nowhere.
int32_t OtherFoldBackend::cut_of(const AttentionPlan& plan, int32_t part, int32_t list) const {
  const KvPart& cut_part = plan.parts[static_cast<size_t>(part)];
  int32_t cut = cut_part.list_count(list);
  if (cut_ != FoldCut::kStepsToo) return cut;
  for (int32_t row = 0; row < plan.rows; ++row) {
    const ops::KvTarget& target = plan.target(list, row);
    if (target.part != part) continue;
    cut = std::min(cut, target.slot - cut_part.list_start(list));
  }
  return cut;
}

// One part's slots [begin, end), plainly, from a fresh state.
OtherFoldBackend::State OtherFoldBackend::fold(const float* query, float scale, int32_t begin,
                                               int32_t end, int32_t dim) const {
  State state;
  state.mean.assign(static_cast<size_t>(dim), 0.0f);
  for (int32_t slot = begin; slot < end; ++slot) {
    const float* k = k_.data() + static_cast<int64_t>(slot) * dim;
    const float* v = v_.data() + static_cast<int64_t>(slot) * dim;
    float score = 0.0f;
    for (int32_t d = 0; d < dim; ++d) score += query[d] * k[d];
    score *= scale;
    State one{score, 1.0f, std::vector<float>(v, v + dim)};
    merge(state, one);
  }
  return state;
}

void OtherFoldBackend::merge(State& into, const State& more) {
  if (more.sum == 0.0f) return;
  const float most = std::max(into.most, more.most);
  const float a = into.sum > 0.0f ? std::exp(into.most - most) : 0.0f;
  const float b = std::exp(more.most - most);
  for (size_t d = 0; d < into.mean.size(); ++d) into.mean[d] = a * into.mean[d] + b * more.mean[d];
  into.sum = a * into.sum + b * more.sum;
  into.most = most;
}

void OtherFoldBackend::attention(const TensorView& q, const AttentionParams& params,
                                 const AttentionPlan& plan, const KvArena& arena,
                                 const TensorView& out) {
  const int32_t dim = arena.layout.head_dim;
  const auto heads = static_cast<int32_t>(q.shape()[1]);
  const int32_t group = heads / plan.kv_heads;
  State fresh;
  fresh.mean.assign(static_cast<size_t>(dim), 0.0f);
  std::vector<State> states(static_cast<size_t>(plan.rows) * static_cast<size_t>(heads), fresh);
  for (const Segment& segment : plan.segments) {
    for (int32_t p = segment.part_begin; p < segment.part_end; ++p) {
      const KvPart& part = plan.parts[static_cast<size_t>(p)];
      for (int32_t kv_head = 0; kv_head < plan.kv_heads; ++kv_head) {
        const int32_t list = params.layer * plan.kv_heads + kv_head;
        read_part(part, list, arena);
        const int32_t start = part.list_start(list), count = part.list_count(list);
        const int32_t cut = cut_of(plan, p, list);
        for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
          const int32_t first =
              segment.dropped ? plan.first_dropped(list, row) : plan.first(list, row);
          const int32_t last =
              segment.dropped ? plan.last_dropped(list, row) : plan.last(list, row);
          const int32_t begin = std::clamp(first - start, 0, count);
          const int32_t end = std::clamp(last - start, begin, count);
          for (int32_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
            const int64_t at = static_cast<int64_t>(row) * heads + head;
            const float* query = q.f32() + at * dim;
            State& state = states[static_cast<size_t>(at)];
            const int32_t middle = std::clamp(cut, begin, end);
            merge(state, fold(query, params.scale, begin, middle, dim));
            merge(state, fold(query, params.scale, middle, end, dim));
          }
        }
      }
    }
  }
  for (size_t i = 0; i < states.size(); ++i) {
    for (int32_t d = 0; d < dim; ++d) {
      const State& s = states[i];
      out.f32()[static_cast<int64_t>(i) * dim + d] =
          s.sum > 0.0f ? s.mean[static_cast<size_t>(d)] / s.sum : 0.0f;
    }
  }
}

}  // namespace

std::unique_ptr<ops::Backend> fold_in_another_order(std::unique_ptr<ops::Backend> inner,
                                                    FoldCut cut) {
  return std::make_unique<OtherFoldBackend>(std::move(inner), cut);
}

}  // namespace coppice
