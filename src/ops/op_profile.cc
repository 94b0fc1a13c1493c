#include "ops/op_profile.h"

#include <algorithm>
#include <chrono>
#include <unordered_map>
#include <utility>

#include "tensor/quant_block.h"

namespace coppice::ops {

double OpProfile::seconds() const {
  double sum = 0;
  for (const OpCount& count : counts_) sum += count.seconds;
  return sum;
}

void OpProfile::reset() {
  for (OpCount& count : counts_) {
    count.calls = 0;
    count.seconds = count.flops = count.bytes = count.exps = 0;
  }
}

OpCount& OpProfile::count(const std::string& name, int64_t n, int64_t k,
                          std::optional<DType> type) {
  const auto found = std::find_if(counts_.begin(), counts_.end(), [&](const OpCount& c) {
    return c.name == name && c.n == n && c.k == k && c.type == type;
  });
  if (found != counts_.end()) return *found;
  return counts_.emplace_back(OpCount{name, n, k, type});
}

namespace {

// What one call needs at least.
struct Cost {
  double flops = 0, bytes = 0, exps = 0;
};

double bytes_of(const TensorView& x) { return static_cast<double>(x.bytes()); }

// Slots of a list that a segment's rows see, added up, and those that any of them sees.
struct Seen {
  int64_t slots = 0, distinct = 0;
};

Seen seen(const Segment& segment, const KvPart& part, const AttentionPlan& plan, int32_t list,
          int32_t window) {
  const int32_t start = part.list_start(list), end = start + part.list_count(list);
  Seen all;
  int32_t from = end, to = start;
  for (int32_t row = segment.row_begin; row < segment.row_end; ++row) {
    const int32_t row_last = segment.dropped ? plan.last_dropped(list, row) : plan.last(list, row);
    const int32_t row_first =
        segment.dropped ? plan.first_dropped(list, row) : plan.first(list, row);
    const int32_t last = std::min(end, row_last);
    const int32_t first = std::max({start, row_first, window > 0 ? row_last - window : 0});
    if (first >= last) continue;
    all.slots += last - first;
    from = std::min(from, first);
    to = std::max(to, last);
  }
  all.distinct = std::max(0, to - from);
  return all;
}

Cost attention_cost(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                    const KvLayout& layout) {
  const double slot_bytes = static_cast<double>(layout.page_bytes) / layout.page_slots;
  const int64_t group = q.shape()[1] / plan.kv_heads;
  Cost cost;
  for (const Segment& segment : plan.segments) {
    for (int32_t p = segment.part_begin; p < segment.part_end; ++p) {
      const KvPart& part = plan.parts[static_cast<size_t>(p)];
      for (int32_t head = 0; head < plan.kv_heads; ++head) {
        const Seen all =
            seen(segment, part, plan, params.layer * plan.kv_heads + head, params.window);
        cost.exps += static_cast<double>(all.slots * group);
        cost.bytes += static_cast<double>(all.distinct) * slot_bytes;
      }
    }
  }
  cost.flops = cost.exps * 4 * static_cast<double>(q.shape()[2]);
  cost.bytes += 2 * bytes_of(q);
  return cost;
}

}  // namespace

class ProfilingBackend : public Backend {
 public:
  ProfilingBackend(std::unique_ptr<Backend> inner, DType plain, std::shared_ptr<OpProfile> profile)
      : inner_(std::move(inner)), plain_(plain), profile_(std::move(profile)) {}

  std::string_view name() const override { return inner_->name(); }
  std::string describe() const override { return inner_->describe(); }
  Expected<Buffer> allocate(int64_t bytes) override { return inner_->allocate(bytes); }
  Status reserve(const StepLimits& limits) override { return inner_->reserve(limits); }
  int64_t scratch_bytes() const override { return inner_->scratch_bytes(); }

  Expected<std::unique_ptr<Weight>> load_weight(const TensorView& w) override {
    auto loaded = inner_->load_weight(w);
    if (loaded) {
      products_[loaded->get()] = &profile_->count("product", (*loaded)->rows(), (*loaded)->cols(),
                                                  is_quantised(w.type()) ? w.type() : plain_);
    }
    return loaded;
  }
  int64_t least_weight_bytes(DType type, const Shape& shape) const override {
    return inner_->least_weight_bytes(type, shape);
  }
  int64_t loading_bytes(DType type, const Shape& shape) const override {
    return inner_->loading_bytes(type, shape);
  }
  Expected<KvLayout> kv_layout(DType type, int32_t head_dim) override {
    return inner_->kv_layout(type, head_dim);
  }

  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    const auto bytes =
        static_cast<double>(ids.size()) * static_cast<double>(arena.layout.page_bytes);
    timed(zeroed_, {.bytes = bytes}, [&] { inner_->zero_pages(arena, ids); });
  }
  void copy_slots(const KvArena& arena, PageId from, int32_t from_slot, PageId to, int32_t to_slot,
                  int32_t slots) override {
    const double bytes =
        2.0 * slots * static_cast<double>(arena.layout.page_bytes) / arena.layout.page_slots;
    timed(copied_, {.bytes = bytes},
          [&] { inner_->copy_slots(arena, from, from_slot, to, to_slot, slots); });
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    inner_->read_page(arena, id, slots, k, v);
  }

  void embed(std::span<const int32_t> ids, const Weight& table, const TensorView& out) override {
    const double row = static_cast<double>(table.bytes()) / static_cast<double>(table.rows());
    const double bytes = static_cast<double>(ids.size()) * row + bytes_of(out);
    timed(embedding_, {.bytes = bytes}, [&] { inner_->embed(ids, table, out); });
  }
  void rms_norm(const TensorView& x, const TensorView& weight, float eps,
                const TensorView& out) override {
    timed(norm_, {.bytes = bytes_of(x) + bytes_of(out)},
          [&] { inner_->rms_norm(x, weight, eps, out); });
  }
  void matmul(const TensorView& x, const Weight& w, const TensorView& bias,
              const TensorView& out) override {
    timed(*products_.at(&w), product_cost(x, 1, w, out), [&] { inner_->matmul(x, w, bias, out); });
  }
  // The time of products done together, and x, are dealt out by the bytes of their weights.
  void matmul_each(const TensorView& x, std::span<const Product> products) override {
    const double seconds = seconds_of([&] { inner_->matmul_each(x, products); });
    double bytes = 0;
    for (const Product& p : products) bytes += static_cast<double>(p.weight.bytes());
    for (const Product& p : products) {
      const double share = static_cast<double>(p.weight.bytes()) / bytes;
      count(*products_.at(&p.weight), product_cost(x, share, p.weight, p.out), seconds * share);
    }
  }
  void add(const TensorView& x, const TensorView& y) override {
    timed(add_, {.bytes = 3 * bytes_of(x)}, [&] { inner_->add(x, y); });
  }
  void add_rms_norm(const TensorView& x, const TensorView& y, const TensorView& weight, float eps,
                    const TensorView& out) override {
    timed(add_norm_, {.bytes = 3 * bytes_of(x) + bytes_of(out)},
          [&] { inner_->add_rms_norm(x, y, weight, eps, out); });
  }
  void swiglu(const TensorView& gate, const TensorView& up, const TensorView& out) override {
    timed(activation_, {.bytes = 3 * bytes_of(out)}, [&] { inner_->swiglu(gate, up, out); });
  }
  void rope(const TensorView& x, const TensorView& cos, const TensorView& sin) override {
    timed(rope_, {.bytes = 2 * bytes_of(x)}, [&] { inner_->rope(x, cos, sin); });
  }
  void gather_rows(const TensorView& x, std::span<const int32_t> rows,
                   const TensorView& out) override {
    timed(gather_, {.bytes = 2 * bytes_of(out)}, [&] { inner_->gather_rows(x, rows, out); });
  }

  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    timed(write_kv_, {.bytes = bytes_of(k) + bytes_of(v) + bytes_written(plan, arena)},
          [&] { inner_->write_kv(k, v, layer, plan, arena); });
  }
  void rope_write_kv(const TensorView& q, const TensorView& k, const TensorView& v,
                     const TensorView& cos, const TensorView& sin, int32_t layer,
                     const AttentionPlan& plan, const KvArena& arena) override {
    const double rows = 2 * bytes_of(q) + 2 * bytes_of(k) + bytes_of(v);
    timed(rope_write_kv_, {.bytes = rows + bytes_written(plan, arena)},
          [&] { inner_->rope_write_kv(q, k, v, cos, sin, layer, plan, arena); });
  }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    if (attention_ == nullptr) attention_ = &profile_->count("attention", 0, 0, arena.layout.type);
    // The plan is the step's, the same for every layer where it is the same for every list.
    if (params.layer == 0 || params.window != window_ || plan.row_stride != 0) {
      attention_cost_ = attention_cost(q, params, plan, arena.layout);
      window_ = params.window;
    }
    timed(*attention_, attention_cost_, [&] { inner_->attention(q, params, plan, arena, out); });
  }
  void to_host(const TensorView& x, void* host) override {
    timed(to_host_, {.bytes = 2 * bytes_of(x)}, [&] { inner_->to_host(x, host); });
  }

 private:
  // share: of reading x, which products done together read once.
  static Cost product_cost(const TensorView& x, double share, const Weight& w,
                           const TensorView& out) {
    return {.flops = 2.0 * static_cast<double>(x.elements()) * static_cast<double>(w.rows()),
            .bytes = static_cast<double>(w.bytes()) + share * bytes_of(x) + bytes_of(out)};
  }
  static double bytes_written(const AttentionPlan& plan, const KvArena& arena) {
    return static_cast<double>(arena.layout.page_bytes) / arena.layout.page_slots * plan.kv_heads *
           plan.rows;
  }

  template <class Call>
  static double seconds_of(const Call& call) {
    const auto start = std::chrono::steady_clock::now();
    call();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  static void count(OpCount& count, const Cost& cost, double seconds) {
    ++count.calls;
    count.seconds += seconds;
    count.flops += cost.flops;
    count.bytes += cost.bytes;
    count.exps += cost.exps;
  }
  template <class Call>
  static void timed(OpCount& of, const Cost& cost, const Call& call) {
    count(of, cost, seconds_of(call));
  }
  OpCount& plain(const char* name) { return profile_->count(name, 0, 0, std::nullopt); }

  std::unique_ptr<Backend> inner_;
  DType plain_;
  std::shared_ptr<OpProfile> profile_;
  std::unordered_map<const Weight*, OpCount*> products_;
  OpCount& embedding_ = plain("embedding");
  OpCount& norm_ = plain("norm");
  OpCount& rope_ = plain("rope");
  OpCount& write_kv_ = plain("write keys and values");
  OpCount& activation_ = plain("activation");
  OpCount& add_ = plain("residual add");
  OpCount& add_norm_ = plain("residual add and norm");
  OpCount& rope_write_kv_ = plain("rope, write keys and values");
  OpCount& gather_ = plain("gather rows");
  OpCount& to_host_ = plain("copy to host");
  OpCount& zeroed_ = plain("zero pages");
  OpCount& copied_ = plain("copy slots");
  OpCount* attention_ = nullptr;
  Cost attention_cost_;
  int32_t window_ = 0;
};

std::unique_ptr<Backend> profiled(std::unique_ptr<Backend> inner, DType plain,
                                  std::shared_ptr<OpProfile> profile) {
  return std::make_unique<ProfilingBackend>(std::move(inner), plain, std::move(profile));
}

}  // namespace coppice::ops
