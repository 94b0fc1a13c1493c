#include "ops/cpu/attention.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "ops/cpu/attention_tiles.h"
#include "ops/lazy_memory.h"
#include "ops/op_checks.h"

namespace coppice::ops::cpu {
namespace {

// Packed rows of an item: their queries and states (3 x 128 x D floats) stay in the L2 cache while
// every tile of keys and values passes once.
constexpr int32_t kBlockRows = 128;
constexpr int32_t kMaxSplits = 16;
constexpr float kLog2E = 1.44269504f;

// Carves arrays of 64-byte multiples out of one buffer; with a null base it only measures.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  T* take(int64_t count) {
    const int64_t at = used_;
    used_ += (count * int64_t{sizeof(T)} + 63) / 64 * 64;
    return base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  int64_t used() const { return used_; }

 private:
  std::byte* base_;
  int64_t used_ = 0;
};

AttentionRows carve_rows(Carver& carver, int64_t n, int64_t dim) {
  AttentionRows rows;
  rows.q = carver.take<float>(n * dim);
  rows.o = carver.take<float>(n * dim);
  rows.total_o = carver.take<float>(n * dim);
  rows.l = carver.take<float>(n * 16);
  rows.m = carver.take<float>(n);
  rows.total_l = carver.take<float>(n);
  rows.total_m = carver.take<float>(n);
  rows.first = carver.take<int32_t>(n);
  rows.last = carver.take<int32_t>(n);
  rows.dropped_first = carver.take<int32_t>(n);
  rows.dropped_last = carver.take<int32_t>(n);
  rows.range = carver.take<int32_t>(n);
  rows.weights = carver.take<float>(n * kChunk);
  rows.factor = carver.take<float>(n * kTilePages);
  rows.rises = carver.take<int32_t>(n);
  return rows;
}

// The arrays of n packed rows' partials.
AttentionPartials carve_partials(Carver& carver, AttentionPartials partials, int64_t n,
                                 int64_t dim) {
  partials.o = carver.take<float>(partials.ranges * n * dim);
  partials.m = carver.take<float>(partials.ranges * n);
  partials.l = carver.take<float>(partials.ranges * n);
  return partials;
}

int64_t partial_bytes(int32_t ranges, int64_t n, int64_t dim) {
  Carver measure(nullptr);
  carve_partials(measure, {.ranges = ranges}, n, dim);
  return measure.used();
}

int32_t ranges_of(int64_t slots) {
  return static_cast<int32_t>((slots + kFoldRange - 1) / kFoldRange);
}

// The slots that rows [row_begin, row_end) of a KV head see, taken together; empty: none.
struct RowBounds {
  int32_t first = 0, last = 0;
};

RowBounds bound_rows(const AttentionJob& job, int32_t kv_head, int32_t row_begin, int32_t row_end) {
  const int32_t list = job.layer * job.plan->kv_heads + kv_head;
  RowBounds all{.first = std::numeric_limits<int32_t>::max()};
  for (int32_t row = row_begin; row < row_end; ++row) {
    const int32_t last = job.plan->last(list, row), first = job.first(list, row);
    if (first >= last) continue;
    all.first = std::min(all.first, first);
    all.last = std::max(all.last, last);
  }
  return all.last > 0 ? all : RowBounds();
}

// Whether any of the rows sees dropped slots.
bool see_dropped(const AttentionJob& job, int32_t kv_head, int32_t row_begin, int32_t row_end) {
  if (!job.plan->gated()) return false;
  const int32_t list = job.layer * job.plan->kv_heads + kv_head;
  for (int32_t row = row_begin; row < row_end; ++row) {
    if (job.plan->first_dropped(list, row) < job.plan->last_dropped(list, row)) return true;
  }
  return false;
}

// Into how many runs of ranges each row block is cut, so that all workers have the same to do.
int32_t splits_for(int64_t blocks, int32_t workers) {
  for (int32_t splits = 1; splits < kMaxSplits; ++splits) {
    const int64_t items = blocks * splits;
    const int64_t rounds = (items + workers - 1) / workers;
    if (items * 10 >= rounds * workers * 9) return splits;
  }
  return kMaxSplits;
}

}  // namespace

Attention::Attention(const AttentionKernel& kernel, int32_t workers, int64_t partial_limit)
    : kernel_(&kernel),
      workers_(workers),
      partial_limit_(partial_limit),
      row_memory_(static_cast<size_t>(workers)),
      rows_(static_cast<size_t>(workers)) {
  CHECK(workers >= 1);
}

Attention::~Attention() = default;

// The number of rows decides how they are cut, so every number is tried.
Status Attention::reserve(const StepLimits& limits) {
  CHECK(limits.kv_heads > 0 && limits.query_heads % limits.kv_heads == 0);
  const int32_t group = limits.query_heads / limits.kv_heads;
  const int32_t dim = padded_head_dim(limits.head_dim);
  const int32_t ranges = ranges_of(limits.slots);  // of kept slots, before the one of dropped
  int64_t packed = 0, items = 0, split_blocks = 0, bytes = 0;
  for (int32_t rows = 1; rows <= limits.rows; ++rows) {
    const Cut made = cut(rows, group, limits.kv_heads);
    const int64_t block = int64_t{made.block_rows} * group;
    packed = std::max(packed, block);
    items = std::max(items, made.blocks * made.splits);
    if (made.splits == 1 || ranges < 2) continue;
    split_blocks = std::max(split_blocks, made.blocks);
    const int64_t most =
        std::min(partial_limit_, partial_bytes(ranges + 1, block, dim) * made.blocks);
    bytes = std::max(bytes, most);
  }
  items_.reserve(static_cast<size_t>(items));
  TRY_STATUS(grow_rows(packed, dim));
  return grow_splits(split_blocks, bytes);
}

int32_t Attention::begin(const TensorView& q, const AttentionParams& params,
                         const AttentionPlan& plan, const KvArena& arena, const TensorView& out) {
  items_.clear();
  if (plan.rows == 0) return 0;
  check_attention(q, params, plan, arena, out);
  job_ = {.q = q.f32(),
          .out = out.f32(),
          .plan = &plan,
          .arena = arena,
          .query_heads = static_cast<int32_t>(q.shape()[1]),
          .group = static_cast<int32_t>(q.shape()[1] / plan.kv_heads),
          .dim = arena.layout.head_dim,
          .padded_dim = padded_head_dim(arena.layout.head_dim),
          .layer = params.layer,
          .window = params.window,
          .scale2 = params.scale * kLog2E};
  cut_items();
  place_partials();
  return static_cast<int32_t>(items_.size());
}

Attention::Cut Attention::cut(int32_t rows, int32_t group, int32_t kv_heads) const {
  Cut made;
  made.block_rows = std::min(rows, std::max(1, kBlockRows / group));
  made.blocks = int64_t{(rows + made.block_rows - 1) / made.block_rows} * kv_heads;
  made.splits = splits_for(made.blocks, workers_);
  return made;
}

void Attention::cut_items() {
  const Cut made = cut(job_.plan->rows, job_.group, job_.plan->kv_heads);
  CHECK(grow_rows(int64_t{made.block_rows} * job_.group, job_.padded_dim));
  split_blocks_ = 0;
  split_bytes_ = 0;
  for (int32_t head = 0; head < job_.plan->kv_heads; ++head) {
    for (int32_t row = 0; row < job_.plan->rows; row += made.block_rows) {
      cut_rows(head, row, std::min(row + made.block_rows, job_.plan->rows), made.splits);
    }
  }
}

void Attention::cut_rows(int32_t kv_head, int32_t row_begin, int32_t row_end, int32_t splits) {
  const RowBounds seen = bound_rows(job_, kv_head, row_begin, row_end);
  const int32_t first_range = seen.first / kFoldRange;
  const int32_t ranges = ranges_of(seen.last) - first_range;
  const bool dropped = see_dropped(job_, kv_head, row_begin, row_end);
  const int32_t all_ranges = ranges + (dropped ? 1 : 0);
  splits = std::clamp(splits, 1, std::max(1, ranges));
  const int64_t bytes =
      partial_bytes(all_ranges, int64_t{row_end - row_begin} * job_.group, job_.padded_dim);
  if (split_bytes_ + bytes > partial_limit_) splits = 1;
  for (int32_t i = 0; i < splits; ++i) {
    AttentionItem item;
    item.kv_head = kv_head;
    item.row_begin = row_begin;
    item.row_end = row_end;
    const auto range = [&](int64_t of) {
      return first_range + static_cast<int32_t>(int64_t{ranges} * of / splits);
    };
    item.slot_begin = range(i) * kFoldRange;
    item.slot_end = range(i + 1) * kFoldRange;
    if (dropped && i == splits - 1) item.dropped_range = first_range + ranges;
    if (splits > 1) {
      item.split = split_blocks_;
      item.partials.first_range = first_range;
      item.partials.ranges = all_ranges;
    }
    items_.push_back(item);
  }
  if (splits == 1) return;
  ++split_blocks_;
  split_bytes_ += bytes;
}

// Gives every split row block its part of the partial memory and counts its items.
void Attention::place_partials() {
  CHECK(grow_splits(split_blocks_, split_bytes_));
  for (int32_t i = 0; i < split_blocks_; ++i) running_[static_cast<size_t>(i)] = 0;
  Carver carver(partial_memory_.data());
  AttentionPartials partials;
  int32_t placed = -1;
  for (AttentionItem& item : items_) {
    if (item.split < 0) continue;
    if (item.split != placed) {
      const int64_t packed = int64_t{item.row_end - item.row_begin} * job_.group;
      partials = carve_partials(carver, item.partials, packed, job_.padded_dim);
      placed = item.split;
    }
    item.partials = partials;
    running_[static_cast<size_t>(item.split)].fetch_add(1);
  }
}

Status Attention::grow_rows(int64_t packed_rows, int32_t padded_dim) {
  if (packed_rows <= packed_capacity_ && padded_dim <= dim_capacity_) return {};
  const int64_t rows = std::max(packed_capacity_, packed_rows);
  const int64_t dim = std::max(dim_capacity_, int64_t{padded_dim});
  packed_capacity_ = dim_capacity_ = 0;  // until all workers have theirs
  Carver measure(nullptr);
  carve_rows(measure, rows, dim);
  for (size_t worker = 0; worker < rows_.size(); ++worker) {
    TRY_STATUS(grow_lazily(row_memory_[worker], measure.used()));
    Carver carver(row_memory_[worker].data());
    rows_[worker] = carve_rows(carver, rows, dim);
  }
  packed_capacity_ = rows;
  dim_capacity_ = dim;
  return {};
}

Status Attention::grow_splits(int64_t blocks, int64_t bytes) {
  if (split_capacity_ < blocks) {
    running_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(blocks));
    split_capacity_ = blocks;
  }
  return grow_lazily(partial_memory_, bytes);
}

AttentionKernel::Run Attention::run_over(DType pages) const {
  switch (pages) {
    case DType::kF32:
      return kernel_->run_f32;
    case DType::kI8:
      return kernel_->run_int8;
    default:
      return kernel_->run_bf16;
  }
}

void Attention::run(int32_t index, int32_t worker) {
  const AttentionItem& item = items_[static_cast<size_t>(index)];
  const AttentionRows& rows = rows_[static_cast<size_t>(worker)];
  run_over(job_.arena.layout.type)(job_, item, rows);
  if (item.split < 0) return;
  // The last item of the row block sees what all the others wrote.
  auto& running = running_[static_cast<size_t>(item.split)];
  if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) kernel_->merge(job_, item, rows);
}

int64_t Attention::scratch_bytes() const {
  int64_t bytes = partial_memory_.bytes();
  for (const Buffer& memory : row_memory_) bytes += memory.bytes();
  return bytes;
}

void Attention::poison_scratch() {
  const auto fill = [](const Buffer& memory) {
    if (memory.bytes() > 0) std::memset(memory.data(), 0xff, static_cast<size_t>(memory.bytes()));
  };
  for (const Buffer& memory : row_memory_) fill(memory);
  fill(partial_memory_);
}

}  // namespace coppice::ops::cpu
