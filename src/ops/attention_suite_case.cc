#include "ops/attention_suite_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace coppice::ops {
namespace {

float rounded_to_bf16(float x) { return to_float(to_bf16(x)); }

}  // namespace

void fill_unwritten(std::byte* page, const KvLayout& layout) {
  const uint16_t large = 0x7f00;  // 1.7e38 as bf16, and twice over as f32
  for (int64_t at = 0; at < layout.page_bytes; at += 2) std::memcpy(page + at, &large, 2);
}

std::vector<float> as_stored(DType type, int32_t dim, const std::vector<float>& x) {
  std::vector<float> out = x;
  if (type == DType::kBF16) std::transform(x.begin(), x.end(), out.begin(), rounded_to_bf16);
  for (auto row = out.begin(); type == DType::kI8 && row != out.end(); row += dim) {
    const float top = std::abs(*std::max_element(
        row, row + dim, [](float a, float b) { return std::abs(a) < std::abs(b); }));
    const float scale = top / 127.0f;
    for (auto at = row; at != row + dim; ++at) {
      *at = scale > 0 ? std::nearbyint(*at / scale) * scale : 0.0f;
    }
  }
  return out;
}

Case::Case(Subject& subject, const Shape3& shape, Data data, uint32_t seed, int32_t pages)
    : subject_(subject), shape_(shape), data_(data), random_(seed) {
  auto layout = subject.kv_layout(shape.type, shape.dim);
  CHECK(layout.has_value());
  auto memory = Buffer::allocate(pages * layout->page_bytes);
  CHECK(memory.has_value());
  memory_ = std::move(*memory);
  forest_ = std::make_unique<Forest>(*layout, memory_.data(), pages, shape.lists());
  // Every byte outside the written slots: large finite numbers inside lists, NaN beyond them.
  std::memset(memory_.data(), 0xff, static_cast<size_t>(memory_.bytes()));
}

int32_t Case::add_node(int32_t parent, std::vector<int32_t> counts) {
  const int32_t node = forest_->add_node(parent, std::move(counts));
  for (int32_t list = 0; list < shape_.lists(); ++list) write_list(node, list);
  return node;
}

int32_t Case::add_dropped(std::vector<int32_t> starts, std::vector<int32_t> counts) {
  const int32_t node = forest_->add_dropped(std::move(starts), std::move(counts));
  for (int32_t list = 0; list < shape_.lists(); ++list) write_list(node, list);
  return node;
}

void Case::make_queries() {
  std::normal_distribution<float> normal;
  for (const ForestSequence& s : forest_->sequences()) {
    std::vector<float>& rows = queries_.emplace_back();
    const int32_t heads = shape_.kv_heads * shape_.group;
    for (int32_t i = 0; i < s.rows * heads * shape_.dim; ++i) {
      rows.push_back(rounded_to_bf16(normal(random_)));
    }
  }
}

Case::Output Case::run(Subject& subject, const CasePlan& made,
                       const AttentionParams& params) const {
  const int32_t heads = shape_.kv_heads * shape_.group;
  const auto row = static_cast<size_t>(heads * shape_.dim);
  const size_t rows = static_cast<size_t>(made.plan.rows);
  auto q = Buffer::allocate(static_cast<int64_t>(rows * row * sizeof(float)));
  auto out = Buffer::allocate(static_cast<int64_t>(rows * row * sizeof(float)));
  CHECK(q.has_value() && out.has_value());
  const Shape shape{made.plan.rows, heads, shape_.dim};
  const TensorView q_view = q->view(DType::kF32, shape), out_view = out->view(DType::kF32, shape);
  for (size_t s = 0; s < queries_.size(); ++s) {
    std::copy(queries_[s].begin(), queries_[s].end(),
              q_view.f32() + static_cast<size_t>(made.row_of[s]) * row);
  }
  std::fill_n(out_view.f32(), rows * row, std::numeric_limits<float>::quiet_NaN());
  subject.attention(q_view, params, made.plan, forest_->arena(), out_view);
  Output output;
  for (size_t s = 0; s < queries_.size(); ++s) {
    const float* from = out_view.f32() + static_cast<size_t>(made.row_of[s]) * row;
    output.emplace_back(from, from + queries_[s].size());
  }
  return output;
}

Case::Output Case::expected(const AttentionParams& params, Values values) const {
  const AllSlots& all = values == Values::kStored ? stored_ : written_;
  Output output;
  for (size_t i = 0; i < queries_.size(); ++i) {
    const ForestSequence& s = forest_->sequences()[i];
    std::vector<float>& rows = output.emplace_back();
    for (int32_t r = 0; r < s.rows; ++r) {
      for (int32_t head = 0; head < shape_.kv_heads * shape_.group; ++head) {
        const int32_t list = params.layer * shape_.kv_heads + head / shape_.group;
        const float* q =
            queries_[i].data() + (r * shape_.kv_heads * shape_.group + head) * shape_.dim;
        attend(visible(all, s, r, list, params.window), q, params.scale, rows);
      }
    }
  }
  return output;
}

void Case::collect(const AllSlots& all, int32_t node, int32_t list, int32_t first, int32_t last,
                   Visible& visible) const {
  const Slots& slots = all.at({node, list});
  const int32_t start =
      forest_->nodes()[static_cast<size_t>(node)].starts[static_cast<size_t>(list)];
  const int32_t count = static_cast<int32_t>(slots.k.size()) / shape_.dim;
  for (int32_t i = std::max(0, first - start); i < std::min(count, last - start); ++i) {
    visible.k.push_back(slots.k.data() + i * shape_.dim);
    visible.v.push_back(slots.v.data() + i * shape_.dim);
  }
}

Case::Visible Case::visible(const AllSlots& all, const ForestSequence& s, int32_t row, int32_t list,
                            int32_t window) const {
  const auto at = static_cast<size_t>(list * s.rows + row);
  const int32_t last =
      s.gate ? s.gate->last[at] : std::max(0, forest_->path_slots(s.node, list) - s.rows + row + 1);
  const int32_t first = window > 0 ? std::max(0, last - window) : 0;
  const std::vector<int32_t> path = forest_->path(s.node);
  Visible seen;
  for (size_t n = 0; n < path.size(); ++n) {
    int32_t end = last;  // what the next node holds a copy of is counted there
    if (n + 1 < path.size()) {
      const ForestNode& next = forest_->nodes()[static_cast<size_t>(path[n + 1])];
      end = std::min(end, next.starts[static_cast<size_t>(list)]);
    }
    collect(all, path[n], list, first, end, seen);
  }
  if (s.gate) {
    collect(all, s.gate->dropped, list, s.gate->dropped_first[at], s.gate->dropped_last[at], seen);
  }
  return seen;
}

void Case::attend(const Visible& visible, const float* q, double scale,
                  std::vector<float>& rows) const {
  std::vector<double> scores;
  for (const float* k : visible.k) {
    double dot = 0;
    for (int32_t d = 0; d < shape_.dim; ++d) dot += double{q[d]} * double{k[d]};
    scores.push_back(dot * scale);
  }
  std::vector<double> sums(static_cast<size_t>(shape_.dim), 0.0);
  double total = 0;
  const double top = scores.empty() ? 0 : *std::max_element(scores.begin(), scores.end());
  for (size_t i = 0; i < scores.size(); ++i) {
    const double p = std::exp(scores[i] - top);
    total += p;
    for (size_t d = 0; d < sums.size(); ++d) sums[d] += p * double{visible.v[i][d]};
  }
  for (const double sum : sums) {
    rows.push_back(scores.empty() ? 0.0f : static_cast<float>(sum / total));
  }
}

void Case::write_list(int32_t node, int32_t list) {
  const ForestNode& n = forest_->nodes()[static_cast<size_t>(node)];
  const int32_t count = n.counts[static_cast<size_t>(list)];
  const KvArena& arena = forest_->arena();
  for (int32_t page = 0; page * arena.layout.page_slots < count; ++page) {
    const PageId id = n.pages[static_cast<size_t>(list * n.page_stride + page)];
    fill_unwritten(arena.page(id), arena.layout);
  }
  const int32_t copied = n.copied[static_cast<size_t>(list)];
  if (copied > 0) copy_list(node, list, copied);
  std::vector<float> k, v;
  for (int32_t i = copied; i < count; ++i) draw_slot(k, v);
  write_slots(node, list, copied, k, v);
  const auto append = [&](AllSlots& to, const std::vector<float>& keys,
                          const std::vector<float>& values) {
    Slots& slots = to[{node, list}];
    slots.k.insert(slots.k.end(), keys.begin(), keys.end());
    slots.v.insert(slots.v.end(), values.begin(), values.end());
  };
  append(stored_, as_stored(shape_.type, shape_.dim, k), as_stored(shape_.type, shape_.dim, v));
  append(written_, k, v);
}

// The parent's last slots become the node's first.
void Case::copy_list(int32_t node, int32_t list, int32_t slots) {
  const ForestNode& n = forest_->nodes()[static_cast<size_t>(node)];
  const ForestNode& parent = forest_->nodes()[static_cast<size_t>(n.parent)];
  const auto at = static_cast<size_t>(list);
  const int32_t from = (n.starts[at] - parent.starts[at]) / forest_->arena().layout.page_slots;
  subject_.copy_slots(forest_->arena(),
                      parent.pages[static_cast<size_t>(list * parent.page_stride + from)], 0,
                      n.pages[static_cast<size_t>(list * n.page_stride)], 0, slots);
  for (AllSlots* all : {&stored_, &written_}) {
    const Slots& above = all->at({n.parent, list});
    const auto floats = static_cast<ptrdiff_t>(slots) * shape_.dim;
    (*all)[{node, list}] = {{above.k.end() - floats, above.k.end()},
                            {above.v.end() - floats, above.v.end()}};
  }
}

void Case::write_slots(int32_t node, int32_t list, int32_t slot, const std::vector<float>& k,
                       const std::vector<float>& v) {
  const ForestNode& n = forest_->nodes()[static_cast<size_t>(node)];
  AttentionPlan plan;
  plan.rows = static_cast<int32_t>(k.size()) / shape_.dim;
  plan.kv_heads = 1;
  plan.parts.push_back(forest_->part(node));
  for (int32_t i = 0; i < plan.rows; ++i) {
    plan.targets.push_back({0, n.starts[static_cast<size_t>(list)] + slot + i});
  }
  const Shape shape{plan.rows, 1, shape_.dim};
  subject_.write_kv({k.data(), DType::kF32, shape}, {v.data(), DType::kF32, shape}, list, plan,
                    forest_->arena());
}

void Case::spoil(int32_t node, int32_t slot) {
  const auto dim = static_cast<size_t>(shape_.dim);
  const std::vector<float> k(dim, std::numeric_limits<float>::quiet_NaN());
  const std::vector<float> v(dim, std::numeric_limits<float>::infinity());
  for (int32_t list = 0; list < shape_.lists(); ++list) write_slots(node, list, slot, k, v);
}

void Case::draw_slot(std::vector<float>& k, std::vector<float>& v) {
  std::normal_distribution<float> normal;
  // Large keys: scores of some hundreds that jump by tens from slot to slot.
  const float scale = data_ == Data::kLargeKeys ? 40.0f : 1.0f;
  for (int32_t d = 0; d < shape_.dim; ++d) {
    k.push_back(data_ == Data::kEqualScores ? 0.25f : scale * normal(random_));
    v.push_back(normal(random_));
  }
}

AttentionParams params_for(const Shape3& shape, int32_t layer, int32_t window) {
  return {
      .layer = layer, .scale = 1.0f / std::sqrt(static_cast<float>(shape.dim)), .window = window};
}

double relative_error(const Case::Output& got, const Case::Output& want) {
  double error = 0, norm = 0;
  for (size_t s = 0; s < want.size(); ++s) {
    for (size_t i = 0; i < want[s].size(); ++i) {
      const double difference = double{got[s][i]} - double{want[s][i]};
      error += difference * difference;
      norm += double{want[s][i]} * double{want[s][i]};
    }
  }
  return norm == 0 ? std::sqrt(error) : std::sqrt(error / norm);
}

bool same_bits(const Case::Output& a, const Case::Output& b) {
  for (size_t s = 0; s < a.size(); ++s) {
    if (a[s].size() != b[s].size() ||
        std::memcmp(a[s].data(), b[s].data(), a[s].size() * sizeof(float)) != 0) {
      return false;
    }
  }
  return a.size() == b.size();
}

}  // namespace coppice::ops
