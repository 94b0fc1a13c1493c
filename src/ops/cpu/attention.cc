#include "ops/cpu/attention.h"

#include <algorithm>
#include <cstring>

#include "ops/cpu/attention_tiles.h"
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
  rows.range = carver.take<int32_t>(n);
  rows.weights = carver.take<float>(n * kChunk);
  rows.factor = carver.take<float>(n * kTilePages);
  rows.rises = carver.take<int32_t>(n);
  return rows;
}

Buffer grown(Buffer buffer, int64_t bytes) {
  if (buffer.bytes() >= bytes) return buffer;
  Expected<Buffer> larger = Buffer::allocate(bytes);
  CHECK(larger.has_value());
  return std::move(*larger);
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

Attention::Attention(const AttentionKernel& kernel, int32_t workers)
    : kernel_(&kernel),
      workers_(workers),
      row_memory_(static_cast<size_t>(workers)),
      rows_(static_cast<size_t>(workers)) {
  CHECK(workers >= 1);
}

Attention::~Attention() = default;

int32_t Attention::begin(const TensorView& q, const AttentionParams& params,
                         const AttentionPlan& plan, const KvArena& arena, const TensorView& out) {
  items_.clear();
  if (plan.rows == 0) return 0;
  check_attention(q, plan, arena, out);
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

void Attention::cut_items() {
  const int32_t block_rows = std::min(job_.plan->rows, std::max(1, kBlockRows / job_.group));
  const int32_t blocks = (job_.plan->rows + block_rows - 1) / block_rows;
  reserve_rows(block_rows * job_.group);
  const int32_t splits = splits_for(int64_t{blocks} * job_.plan->kv_heads, workers_);
  split_blocks_ = 0;
  for (int32_t head = 0; head < job_.plan->kv_heads; ++head) {
    for (int32_t row = 0; row < job_.plan->rows; row += block_rows) {
      cut_rows(head, row, std::min(row + block_rows, job_.plan->rows), splits);
    }
  }
}

void Attention::cut_rows(int32_t kv_head, int32_t row_begin, int32_t row_end, int32_t splits) {
  const int32_t list = job_.layer * job_.plan->kv_heads + kv_head;
  int32_t last = 0;
  for (int32_t row = row_begin; row < row_end; ++row) {
    last = std::max(last, job_.plan->last(list, row));
  }
  const int32_t ranges = (last + kFoldRange - 1) / kFoldRange;
  splits = std::clamp(splits, 1, std::max(1, ranges));
  for (int32_t i = 0; i < splits; ++i) {
    AttentionItem item;
    item.kv_head = kv_head;
    item.row_begin = row_begin;
    item.row_end = row_end;
    item.slot_begin = static_cast<int32_t>(int64_t{ranges} * i / splits) * kFoldRange;
    item.slot_end = static_cast<int32_t>(int64_t{ranges} * (i + 1) / splits) * kFoldRange;
    if (splits > 1) {
      item.split = split_blocks_;
      item.partials.ranges = ranges;
    }
    items_.push_back(item);
  }
  if (splits > 1) ++split_blocks_;
}

// Gives every split row block its part of the partial memory and counts its items.
void Attention::place_partials() {
  if (split_blocks_ == 0) return;
  if (split_capacity_ < split_blocks_) {
    running_ = std::make_unique<std::atomic<int32_t>[]>(static_cast<size_t>(split_blocks_));
    split_capacity_ = split_blocks_;
  }
  for (int32_t i = 0; i < split_blocks_; ++i) running_[static_cast<size_t>(i)] = 0;
  for (const bool measure : {true, false}) {
    Carver carver(measure ? nullptr : partial_memory_.data());
    AttentionPartials partials;
    int32_t placed = -1;
    for (AttentionItem& item : items_) {
      if (item.split < 0) continue;
      if (item.split != placed) {
        const int64_t states =
            int64_t{item.partials.ranges} * (item.row_end - item.row_begin) * job_.group;
        partials.ranges = item.partials.ranges;
        partials.o = carver.take<float>(states * job_.padded_dim);
        partials.m = carver.take<float>(states);
        partials.l = carver.take<float>(states);
        placed = item.split;
      }
      item.partials = partials;
      if (!measure) running_[static_cast<size_t>(item.split)].fetch_add(1);
    }
    if (measure) partial_memory_ = grown(std::move(partial_memory_), carver.used());
  }
}

void Attention::reserve_rows(int32_t packed_rows) {
  if (packed_rows <= packed_capacity_ && job_.padded_dim <= dim_capacity_) return;
  packed_capacity_ = std::max(packed_capacity_, packed_rows);
  dim_capacity_ = std::max(dim_capacity_, job_.padded_dim);
  Carver measure(nullptr);
  carve_rows(measure, packed_capacity_, dim_capacity_);
  for (size_t worker = 0; worker < rows_.size(); ++worker) {
    row_memory_[worker] = grown(std::move(row_memory_[worker]), measure.used());
    Carver carver(row_memory_[worker].data());
    rows_[worker] = carve_rows(carver, packed_capacity_, dim_capacity_);
  }
}

void Attention::run(int32_t index, int32_t worker) {
  const AttentionItem& item = items_[static_cast<size_t>(index)];
  const AttentionRows& rows = rows_[static_cast<size_t>(worker)];
  const bool bf16_pages = job_.arena.layout.type == DType::kBF16;
  (bf16_pages ? kernel_->run_bf16 : kernel_->run_f32)(job_, item, rows);
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
