#include "attention_case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <random>
#include <string>

#include "base/check.h"
#include "coppice/options.h"

namespace coppice::tools {
namespace {

constexpr int32_t kDataRows = 1031;
constexpr int32_t kSlice = 512;
// Layers are added until their keys and values outgrow the last-level cache several times.
constexpr int64_t kColdBytes = int64_t{128} << 20;
constexpr int32_t kMaxLayers = 16;
// Multiply-adds that the float64 reference may cost.
constexpr double kReferenceWork = 4e8;

size_t data_row(kv::TokenId token, int32_t layer, bool value) {
  uint64_t x = static_cast<uint64_t>(token) * 2 + (value ? 1 : 0);
  x = (x + static_cast<uint64_t>(layer) * 0x10001) * 0x9e3779b97f4a7c15u;
  return static_cast<size_t>((x >> 32) % kDataRows);
}

int32_t layers_for(const AttentionShape& shape) {
  const int64_t unique = shape.unique_tokens() * shape.bytes_per_token();
  const int64_t layers = (kColdBytes + unique - 1) / unique;
  return static_cast<int32_t>(std::clamp<int64_t>(layers, 1, kMaxLayers));
}

Status fits(const char* what, int64_t bytes, int64_t available) {
  if (bytes <= available) return {};
  return fail(ErrorCode::kTooLarge, std::string(what) + " of this case need " + format_size(bytes) +
                                        "; " + format_size(available) + " are available");
}

}  // namespace

int32_t AttentionShape::sequences() const {
  return ragged.empty() ? nodes.back() : static_cast<int32_t>(ragged.size());
}

int64_t AttentionShape::node_count() const {
  int64_t count = static_cast<int64_t>(prefixes.size() + ragged.size());
  for (const int32_t n : nodes) count += n;
  return count;
}

int64_t AttentionShape::context(int32_t sequence) const {
  if (!ragged.empty()) {
    const Ragged& own = ragged[static_cast<size_t>(sequence)];
    return int64_t{prefixes[static_cast<size_t>(own.prefix)]} + own.own;
  }
  int64_t sum = 0;
  for (const int32_t n : tokens) sum += n;
  return sum;
}

int64_t AttentionShape::all_tokens() const {
  int64_t sum = 0;
  for (int32_t s = 0; s < sequences(); ++s) sum += context(s);
  return sum;
}

int64_t AttentionShape::unique_tokens() const {
  int64_t sum = 0;
  for (size_t level = 0; level < nodes.size(); ++level) {
    sum += int64_t{nodes[level]} * tokens[level];
  }
  for (const int32_t n : prefixes) sum += n;
  for (const Ragged& own : ragged) sum += own.own;
  return sum;
}

int64_t AttentionShape::bytes_per_token() const {
  return kv_heads * ops::kv_slot_bytes(kv_type, head_dim);
}

Expected<std::unique_ptr<AttentionCase>> AttentionCase::create(const AttentionShape& shape,
                                                               const ops::BackendOptions& options) {
  const int64_t each = shape.bytes_per_token() * layers_for(shape);
  TRY_STATUS(fits("keys and values", shape.unique_tokens() * each, available_memory()));
  // Queries, outputs and the outputs that the ways are compared with.
  const int64_t row_bytes = int64_t{shape.heads} * shape.head_dim * int64_t{sizeof(float)};
  TRY_STATUS(fits("queries", 3 * shape.sequences() * row_bytes, available_memory()));
  TRY(auto backend, ops::make_backend("cpu", options));
  std::unique_ptr<AttentionCase> made(new AttentionCase(shape, std::move(backend)));
  TRY_STATUS(made->build(true, made->shared_));
  if (shape.all_tokens() * each < available_memory() / 2) {
    TRY_STATUS(made->build(false, made->unshared_));
  }
  return made;
}

AttentionCase::AttentionCase(const AttentionShape& shape, std::unique_ptr<ops::Backend> backend)
    : shape_(shape), backend_(std::move(backend)), layers_(layers_for(shape)) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  rows_.resize(static_cast<size_t>(kDataRows) *
               static_cast<size_t>(shape.kv_heads * shape.head_dim));
  for (float& x : rows_) x = normal(random);
  q_.resize(static_cast<size_t>(shape.sequences()) *
            static_cast<size_t>(shape.heads * shape.head_dim));
  for (float& x : q_) x = to_float(to_bf16(normal(random)));
  out_.resize(q_.size());
}

std::vector<kv::TokenId> AttentionCase::tokens_of(int32_t sequence) const {
  std::vector<kv::TokenId> tokens;
  const auto add_node = [&](int32_t node, int32_t count) {
    for (int32_t i = 0; i < count; ++i) tokens.push_back(node << 15 | (i & 0x7fff));
  };
  if (!shape_.ragged.empty()) {
    const AttentionShape::Ragged& own = shape_.ragged[static_cast<size_t>(sequence)];
    add_node(own.prefix, shape_.prefixes[static_cast<size_t>(own.prefix)]);
    add_node(static_cast<int32_t>(shape_.prefixes.size()) + sequence, own.own);
    return tokens;
  }
  // From the leaf upward: a level's nodes are dealt out evenly below those of the level above.
  std::vector<int32_t> path(shape_.nodes.size(), sequence);
  for (size_t level = path.size() - 1; level > 0; --level) {
    path[level - 1] =
        static_cast<int32_t>(int64_t{path[level]} * shape_.nodes[level - 1] / shape_.nodes[level]);
  }
  int32_t first_node = 0;
  for (size_t level = 0; level < path.size(); ++level) {
    add_node(first_node + path[level], shape_.tokens[level]);
    first_node += shape_.nodes[level];
  }
  return tokens;
}

Status AttentionCase::build(bool shared, std::unique_ptr<Pages>& out) {
  auto pages = std::make_unique<Pages>();
  kv::KvCacheOptions options{.layers = layers_,
                             .kv_heads = shape_.kv_heads,
                             .head_dim = shape_.head_dim,
                             .kv_type = shape_.kv_type};
  // Whole pages per node, and one more where a sequence copies a partial page.
  const int64_t levels = std::max<int64_t>(2, static_cast<int64_t>(shape_.nodes.size()));
  const int64_t slack = int64_t{64} * shape_.sequences() * levels;
  const int64_t tokens = (shared ? shape_.unique_tokens() : shape_.all_tokens()) + slack;
  TRY(const ops::KvLayout layout, backend_->kv_layout(shape_.kv_type, shape_.head_dim));
  options.budget_bytes = tokens / layout.page_slots * layout.page_bytes * layers_ * shape_.kv_heads;
  TRY(pages->cache, kv::KvCache::create(*backend_, options, kv::least_recently_used()));
  std::vector<kv::SequenceId> ids;
  for (int32_t s = 0; s < shape_.sequences(); ++s) {
    // A scope of its own shares nothing.
    ids.push_back(pages->cache->open(shared ? "shared" : std::to_string(s), tokens_of(s)));
  }
  TRY_STATUS(fill(*pages->cache, ids));
  const kv::Step& step = pages->cache->plan(kv::Partition::kTwoPhase);
  pages->two_phase = step.plan;
  sequences_of_rows(step, ids, *pages);
  pages->per_sequence = pages->cache->plan(kv::Partition::kPerSequence).plan;
  for (const ops::Segment& segment : pages->per_sequence.segments) {
    ops::AttentionPlan& alone = pages->alone.emplace_back();
    alone.rows = 1;
    alone.kv_heads = shape_.kv_heads;
    const auto parts = pages->per_sequence.parts.begin();
    alone.parts.assign(parts + segment.part_begin, parts + segment.part_end);
    alone.segments.push_back({0, 1, 0, static_cast<int32_t>(alone.parts.size())});
    const auto row = static_cast<size_t>(segment.row_begin);
    alone.row_first = {pages->per_sequence.row_first[row]};
    alone.row_last = {pages->per_sequence.row_last[row]};
  }
  out = std::move(pages);
  return {};
}

void AttentionCase::sequences_of_rows(const kv::Step& step, const std::vector<kv::SequenceId>& ids,
                                      Pages& pages) const {
  std::map<kv::SequenceId, int32_t> sequences;
  for (const kv::SequenceId id : ids) sequences.emplace(id, sequences.size());
  CHECK(step.slices.size() == ids.size() && step.plan.rows == shape_.sequences());
  for (const kv::Slice& slice : step.slices) {
    pages.sequence_of.push_back(sequences.at(slice.sequence));
  }
}

// Prefills all but each sequence's last token, then plans and writes that one for all.
Status AttentionCase::fill(kv::KvCache& cache, const std::vector<kv::SequenceId>& ids) {
  const auto no_room = [] {
    return fail(ErrorCode::kInternal, "the bench's cache has no room for its own sequences");
  };
  for (const kv::SequenceId id : ids) {
    for (auto progress = cache.progress(id); progress.computed + 1 < progress.tokens;
         progress = cache.progress(id)) {
      const auto rows = std::min<int64_t>(kSlice, progress.tokens - 1 - progress.computed);
      if (!cache.reserve(id, static_cast<int32_t>(rows))) return no_room();
      write(cache.plan(kv::Partition::kTwoPhase), cache.arena());
      cache.commit();
    }
  }
  for (const kv::SequenceId id : ids) {
    if (!cache.reserve(id, 1)) return no_room();
  }
  write(cache.plan(kv::Partition::kTwoPhase), cache.arena());
  return {};
}

// Keys and values of a token are rows of one random table: equal tokens have equal ones.
void AttentionCase::write(const kv::Step& step, const ops::KvArena& arena) {
  const auto width = static_cast<size_t>(shape_.kv_heads * shape_.head_dim);
  k_.resize(step.tokens.size() * width);
  v_.resize(k_.size());
  const Shape shape{step.plan.rows, shape_.kv_heads, shape_.head_dim};
  for (int32_t layer = 0; layer < layers_; ++layer) {
    for (size_t t = 0; t < step.tokens.size(); ++t) {
      const kv::TokenId token = step.tokens[t];
      std::copy_n(&rows_[data_row(token, layer, false) * width], width, &k_[t * width]);
      std::copy_n(&rows_[data_row(token, layer, true) * width], width, &v_[t * width]);
    }
    backend_->write_kv({k_.data(), DType::kF32, shape}, {v_.data(), DType::kF32, shape}, layer,
                       step.plan, arena);
  }
}

ops::AttentionParams AttentionCase::next_params() {
  layer_ = (layer_ + 1) % layers_;
  return {.layer = layer_, .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
}

void AttentionCase::attend(const ops::AttentionPlan& plan, const Pages& pages) {
  const Shape shape{plan.rows, shape_.heads, shape_.head_dim};
  backend_->attention({q_.data(), DType::kF32, shape}, next_params(), plan, pages.cache->arena(),
                      {out_.data(), DType::kF32, shape});
}

void AttentionCase::per_sequence_outer() {
  const ops::AttentionParams params = next_params();
  const Shape shape{1, shape_.heads, shape_.head_dim};
  const auto width = static_cast<size_t>(shape_.heads * shape_.head_dim);
  for (size_t row = 0; row < shared_->alone.size(); ++row) {
    backend_->attention({&q_[row * width], DType::kF32, shape}, params, shared_->alone[row],
                        shared_->cache->arena(), {&out_[row * width], DType::kF32, shape});
  }
}

std::vector<PlanCost> AttentionCase::segment_costs() const {
  std::vector<PlanCost> costs;
  const ops::AttentionPlan& plan = shared_->two_phase;
  for (const ops::Segment& segment : plan.segments) {
    PlanCost cost;
    for (int32_t p = segment.part_begin; p < segment.part_end; ++p) {
      const ops::KvPart& part = plan.parts[static_cast<size_t>(p)];
      cost.bytes += static_cast<double>(part.count) * static_cast<double>(shape_.bytes_per_token());
      for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
        const int32_t end = std::min(part.start + part.count, plan.last(0, row));
        cost.exps += static_cast<double>(std::max(0, end - part.start)) * shape_.heads;
      }
    }
    cost.flops = cost.exps * 4 * shape_.head_dim;
    costs.push_back(cost);
  }
  return costs;
}

int64_t AttentionCase::unique_kv_bytes() const {
  return shared_->cache->stats().bytes_held / layers_;
}

// Attention of one row's query heads [G, D] of a KV head, from the tokens of its sequence.
std::vector<double> AttentionCase::reference(int32_t row, int32_t kv_head) const {
  const int32_t group = shape_.heads / shape_.kv_heads, dim = shape_.head_dim;
  const auto width = static_cast<size_t>(shape_.kv_heads * dim);
  const auto first = static_cast<size_t>(kv_head * dim);
  std::vector<float> k, v;
  const auto add = [&](std::vector<float>& to, kv::TokenId token, bool value) {
    const float* from = &rows_[data_row(token, layer_, value) * width + first];
    for (int32_t d = 0; d < dim; ++d) {
      to.push_back(shape_.kv_type == DType::kBF16 ? to_float(to_bf16(from[d])) : from[d]);
    }
  };
  for (const kv::TokenId token : tokens_of(shared_->sequence_of[static_cast<size_t>(row)])) {
    add(k, token, false);
    add(v, token, true);
  }
  std::vector<double> out;
  std::vector<double> weights(k.size() / static_cast<size_t>(dim));
  for (int32_t g = 0; g < group; ++g) {
    const float* q = &q_[query_at(row, kv_head * group + g)];
    for (size_t i = 0; i < weights.size(); ++i) {
      double dot = 0;
      for (int32_t d = 0; d < dim; ++d) {
        dot += double{q[d]} * double{k[i * static_cast<size_t>(dim) + static_cast<size_t>(d)]};
      }
      weights[i] = dot / std::sqrt(static_cast<double>(dim));
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    std::vector<double> mix(static_cast<size_t>(dim));
    for (size_t i = 0; i < weights.size(); ++i) {
      const double p = std::exp(weights[i] - top);
      sum += p;
      for (size_t d = 0; d < mix.size(); ++d) {
        mix[d] += p * double{v[i * static_cast<size_t>(dim) + d]};
      }
    }
    for (const double x : mix) out.push_back(x / sum);
  }
  return out;
}

double AttentionCase::relative_error() {
  two_phase();
  const double context =
      static_cast<double>(shape_.all_tokens()) / static_cast<double>(shape_.sequences());
  const double work = context * shape_.heads * shape_.head_dim * 2;
  const int32_t rows =
      static_cast<int32_t>(std::clamp(kReferenceWork / work, 1.0, double(shape_.sequences())));
  const int32_t group = shape_.heads / shape_.kv_heads;
  double error = 0, norm = 0;
  for (int32_t i = 0; i < rows; ++i) {
    const auto row = static_cast<int32_t>(int64_t{i} * shape_.sequences() / rows);
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      const std::vector<double> want = reference(row, head);
      const float* got = &out_[query_at(row, head * group)];
      for (size_t d = 0; d < want.size(); ++d) {
        error += (double{got[d]} - want[d]) * (double{got[d]} - want[d]);
        norm += want[d] * want[d];
      }
    }
  }
  return std::sqrt(error / norm);
}

bool AttentionCase::ways_agree() {
  const int32_t layer = layer_;
  two_phase();
  const std::vector<float> first = out_;
  const auto same = [&](auto way) {
    layer_ = layer;
    std::fill(out_.begin(), out_.end(), 0.0f);
    (this->*way)();
    return std::memcmp(first.data(), out_.data(), out_.size() * sizeof(float)) == 0;
  };
  return same(&AttentionCase::per_sequence) && same(&AttentionCase::per_sequence_outer) &&
         (!has_unshared() || same(&AttentionCase::per_sequence_unshared));
}

}  // namespace coppice::tools
