// The suite that judges attention and key-value pages of every backend and every instruction set of
// it that this machine has: against float64, and every plan of the same rows against each other.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "ops/attention_cases.h"
#include "ops/backends.h"
#include "ops/cpu/attention.h"
#include "ops/cpu/attention_emulated.h"
#include "ops/cpu/kv_pages.h"
#include "ops/cpu/thread_pool.h"

namespace coppice::ops {
namespace {

// --- what is judged

class Subject {
 public:
  virtual ~Subject() = default;
  virtual Expected<KvLayout> kv_layout(DType type, int32_t dim) = 0;
  virtual void zero_pages(const KvArena& arena, std::span<const PageId> ids) = 0;
  virtual void copy_slots(const KvArena& arena, PageId from, PageId to, int32_t slots) = 0;
  virtual void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                         const TensorView& v) = 0;
  virtual void write_kv(const TensorView& k, const TensorView& v, int32_t layer,
                        const AttentionPlan& plan, const KvArena& arena) = 0;
  virtual void attention(const TensorView& q, const AttentionParams& params,
                         const AttentionPlan& plan, const KvArena& arena,
                         const TensorView& out) = 0;
};

class BackendSubject : public Subject {
 public:
  explicit BackendSubject(std::unique_ptr<Backend> backend) : backend_(std::move(backend)) {}
  Expected<KvLayout> kv_layout(DType type, int32_t dim) override {
    return backend_->kv_layout(type, dim);
  }
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    backend_->zero_pages(arena, ids);
  }
  void copy_slots(const KvArena& arena, PageId from, PageId to, int32_t slots) override {
    backend_->copy_slots(arena, from, to, slots);
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    backend_->read_page(arena, id, slots, k, v);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    backend_->write_kv(k, v, layer, plan, arena);
  }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    backend_->attention(q, params, plan, arena, out);
  }

 private:
  std::unique_ptr<Backend> backend_;
};

// One CPU kernel, its scratch full of NaN before every call.
class KernelSubject : public Subject {
 public:
  KernelSubject(const cpu::AttentionKernel& kernel, int threads)
      : pool_(threads), attention_(kernel, threads) {}
  Expected<KvLayout> kv_layout(DType type, int32_t dim) override {
    return cpu::kv_layout(type, dim);
  }
  void zero_pages(const KvArena& arena, std::span<const PageId> ids) override {
    cpu::zero_pages(arena, ids);
  }
  void copy_slots(const KvArena& arena, PageId from, PageId to, int32_t slots) override {
    cpu::copy_slots(arena, from, to, slots);
  }
  void read_page(const KvArena& arena, PageId id, int32_t slots, const TensorView& k,
                 const TensorView& v) override {
    cpu::read_page(arena, id, slots, k, v);
  }
  void write_kv(const TensorView& k, const TensorView& v, int32_t layer, const AttentionPlan& plan,
                const KvArena& arena) override {
    cpu::write_kv(k, v, layer, plan, arena, 0, plan.rows);
  }
  void attention(const TensorView& q, const AttentionParams& params, const AttentionPlan& plan,
                 const KvArena& arena, const TensorView& out) override {
    const int32_t items = attention_.begin(q, params, plan, arena, out);
    attention_.poison_scratch();
    pool_.parallel_for(items, [&](int32_t item, int32_t worker) { attention_.run(item, worker); });
  }

 private:
  cpu::ThreadPool pool_;
  cpu::Attention attention_;
};

// The order of pages inside a tile turned round: as accurate, and no longer canonical.
struct ReversedFold {
  static constexpr int page(int i, int n) { return n - 1 - i; }
};

namespace kernels {
using namespace cpu::emulated;
using Dot = DotBf16<EmulatedOps>;
template <class Fold>
constexpr cpu::AttentionKernel kEmulated{.name = "emulated",
                                         .run_bf16 = run_item<EmulatedOps, Dot, Fold>,
                                         .merge = merge_item<EmulatedOps, Dot>,
                                         .rounds_q = true};
}  // namespace kernels

std::unique_ptr<Subject> reversed_subject() {
  return std::make_unique<KernelSubject>(kernels::kEmulated<ReversedFold>, 1);
}

// "ref", "cpu": backends; "kernel/ISA": a kernel alone. Null where this CPU has no such ISA.
std::unique_ptr<Subject> make_subject(const std::string& name, int threads) {
  if (name == "kernel/emulated") {
    return std::make_unique<KernelSubject>(kernels::kEmulated<cpu::emulated::CanonicalFold>,
                                           threads);
  }
  if (name.starts_with("kernel/")) {
    const auto isa = cpu::choose_isa(name.substr(7));
    if (!isa) return nullptr;
    return std::make_unique<KernelSubject>(cpu::attention_kernel(*isa), threads);
  }
  auto backend = make_backend(name, {.threads = threads});
  CHECK(backend.has_value());
  return std::make_unique<BackendSubject>(std::move(*backend));
}

// --- what it is judged on

struct Shape3 {
  int32_t layers = 1, kv_heads = 2, group = 4, dim = 64;
  DType type = DType::kBF16;
  int32_t lists() const { return layers * kv_heads; }
};

enum class Data { kOrdinary, kLargeKeys, kEqualScores };

float rounded(DType type, float x) { return type == DType::kBF16 ? to_float(to_bf16(x)) : x; }

// A forest with its keys and values, in pages and as plain arrays.
class Case {
 public:
  Case(Subject& subject, const Shape3& shape, Data data, uint32_t seed, int32_t pages = 1200)
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

  Forest& forest() { return *forest_; }
  std::mt19937& random() { return random_; }
  int32_t uniform(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }

  int32_t add_node(int32_t parent, std::vector<int32_t> counts) {
    const int32_t node = forest_->add_node(parent, std::move(counts));
    for (int32_t list = 0; list < shape_.lists(); ++list) write_list(node, list);
    return node;
  }

  // Queries are made when all sequences are known; rounded to bf16, the common ground of all ISAs.
  void make_queries() {
    std::normal_distribution<float> normal;
    for (const ForestSequence& s : forest_->sequences()) {
      std::vector<float>& rows = queries_.emplace_back();
      const int32_t heads = shape_.kv_heads * shape_.group;
      for (int32_t i = 0; i < s.rows * heads * shape_.dim; ++i) {
        rows.push_back(rounded(DType::kBF16, normal(random_)));
      }
    }
  }

  // [sequence][row, head, d], whatever the plan's order.
  using Output = std::vector<std::vector<float>>;

  Output run(Subject& subject, const CasePlan& made, const AttentionParams& params) {
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
  Output run(const CasePlan& made, const AttentionParams& params) {
    return run(subject_, made, params);
  }

  // The same in float64, from the values as rounded to the page type.
  Output expected(const AttentionParams& params) const {
    Output output;
    for (size_t i = 0; i < queries_.size(); ++i) {
      const ForestSequence& s = forest_->sequences()[i];
      std::vector<float>& rows = output.emplace_back();
      for (int32_t r = 0; r < s.rows; ++r) {
        for (int32_t head = 0; head < shape_.kv_heads * shape_.group; ++head) {
          const int32_t list = params.layer * shape_.kv_heads + head / shape_.group;
          const int32_t last = std::max(0, forest_->path_slots(s.node, list) - s.rows + r + 1);
          const int32_t first = params.window > 0 ? std::max(0, last - params.window) : 0;
          const float* q =
              queries_[i].data() + (r * shape_.kv_heads * shape_.group + head) * shape_.dim;
          attend(q, params.scale, s.node, list, first, last, rows);
        }
      }
    }
    return output;
  }

 private:
  struct Slots {
    std::vector<float> k, v;  // [count, D] as written
  };

  void attend(const float* q, double scale, int32_t node, int32_t list, int32_t first, int32_t last,
              std::vector<float>& rows) const {
    std::vector<double> scores;
    std::vector<const float*> values;
    for (const int32_t n : forest_->path(node)) {
      const Slots& slots = slots_.at({n, list});
      const int32_t start =
          forest_->nodes()[static_cast<size_t>(n)].starts[static_cast<size_t>(list)];
      for (int32_t i = 0; i < static_cast<int32_t>(slots.k.size()) / shape_.dim; ++i) {
        if (start + i < first || start + i >= last) continue;
        double dot = 0;
        for (int32_t d = 0; d < shape_.dim; ++d) {
          dot += double{q[d]} * double{slots.k[static_cast<size_t>(i * shape_.dim + d)]};
        }
        scores.push_back(dot * scale);
        values.push_back(slots.v.data() + i * shape_.dim);
      }
    }
    std::vector<double> sums(static_cast<size_t>(shape_.dim), 0.0);
    double total = 0;
    const double top = scores.empty() ? 0 : *std::max_element(scores.begin(), scores.end());
    for (size_t i = 0; i < scores.size(); ++i) {
      const double p = std::exp(scores[i] - top);
      total += p;
      for (size_t d = 0; d < sums.size(); ++d) sums[d] += p * double{values[i][d]};
    }
    for (const double sum : sums) {
      rows.push_back(scores.empty() ? 0.0f : static_cast<float>(sum / total));
    }
  }

  // Fills a list's pages through write_kv, as a plan of one head whose rows are the slots.
  void write_list(int32_t node, int32_t list) {
    const ForestNode& n = forest_->nodes()[static_cast<size_t>(node)];
    const int32_t count = n.counts[static_cast<size_t>(list)];
    const KvArena& arena = forest_->arena();
    for (int32_t page = 0; page * arena.layout.page_slots < count; ++page) {
      const PageId id = n.pages[static_cast<size_t>(list * n.page_stride + page)];
      poison(arena.page(id), arena.layout);
    }
    Slots& slots = slots_[{node, list}];
    AttentionPlan plan;
    plan.rows = count;
    plan.kv_heads = 1;
    plan.parts.push_back(forest_->part(node));
    std::vector<float> k, v;
    for (int32_t i = 0; i < count; ++i) {
      plan.targets.push_back({0, n.starts[static_cast<size_t>(list)] + i});
      draw_slot(k, v);
    }
    const Shape shape{count, 1, shape_.dim};
    subject_.write_kv({k.data(), DType::kF32, shape}, {v.data(), DType::kF32, shape}, list, plan,
                      arena);
    for (const float x : k) slots.k.push_back(rounded(shape_.type, x));
    for (const float x : v) slots.v.push_back(rounded(shape_.type, x));
  }

  void draw_slot(std::vector<float>& k, std::vector<float>& v) {
    std::normal_distribution<float> normal;
    // Large keys: scores of some hundreds that jump by tens from slot to slot.
    const float scale = data_ == Data::kLargeKeys ? 40.0f : 1.0f;
    for (int32_t d = 0; d < shape_.dim; ++d) {
      k.push_back(data_ == Data::kEqualScores ? 0.25f : scale * normal(random_));
      v.push_back(normal(random_));
    }
  }

  static void poison(std::byte* page, const KvLayout& layout) {
    const uint16_t large = 0x7f00;  // 1.7e38 as bf16, and twice over as f32
    for (int64_t at = 0; at < layout.page_bytes; at += 2) std::memcpy(page + at, &large, 2);
  }

  Subject& subject_;
  Shape3 shape_;
  Data data_;
  std::mt19937 random_;
  Buffer memory_;
  std::unique_ptr<Forest> forest_;
  std::map<std::pair<int32_t, int32_t>, Slots> slots_;
  std::vector<std::vector<float>> queries_;
};

AttentionParams params_for(const Shape3& shape, int32_t layer = 0, int32_t window = 0) {
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

constexpr double kBar = 4e-3;
const PlanStyle kTwoPhase{};
const PlanStyle kPerSequence{.per_sequence = true};
const PlanStyle kCut{.cut_parts = true, .shuffle = true};
const PlanStyle kCutPerSequence{
    .per_sequence = true, .cut_parts = true, .shuffle = true, .per_list_bounds = true};

// A random forest: shared inner nodes of whole pages, private leaves of any length.
void grow(Case& c, const Shape3& shape, bool ragged, int32_t parent, int depth) {
  const auto counts = [&](bool leaf) {
    std::vector<int32_t> n(ragged ? static_cast<size_t>(shape.lists()) : 1);
    for (int32_t& x : n) x = leaf ? c.uniform(0, 90) : 16 * c.uniform(0, 12);
    return n;
  };
  const int32_t children = c.uniform(1, 3);
  for (int32_t i = 0; i < children; ++i) {
    if (depth > 0 && c.uniform(0, 2) > 0) {
      grow(c, shape, ragged, c.add_node(parent, counts(false)), depth - 1);
    } else {
      const int32_t leaf = c.add_node(parent, counts(true));
      const int32_t slots = c.forest().path_slots(leaf, 0);
      c.forest().add_sequence(leaf, std::min(std::max(1, slots), c.uniform(0, 3) ? 1 : 21));
    }
  }
}

class AttentionSuite : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    subject_ = make_subject(GetParam(), 1);
    if (subject_ == nullptr) GTEST_SKIP() << "this CPU does not have it";
  }
  Subject& subject() { return *subject_; }
  std::unique_ptr<Subject> another(int threads) { return make_subject(GetParam(), threads); }

  // All plans of a case, bit-equal to the first, which is near float64.
  void judge(Case& c, const AttentionParams& params, int32_t kv_heads, int cuts = 2) {
    c.make_queries();
    const Case::Output want = c.expected(params);
    const Case::Output got = c.run(c.forest().plan(kv_heads, kTwoPhase, c.random()), params);
    EXPECT_LE(relative_error(got, want), kBar);
    std::vector<PlanStyle> styles{kPerSequence};
    for (int i = 0; i < cuts; ++i) styles.insert(styles.end(), {kCut, kCutPerSequence});
    for (const PlanStyle& style : styles) {
      EXPECT_TRUE(same_bits(got, c.run(c.forest().plan(kv_heads, style, c.random()), params)))
          << "per sequence " << style.per_sequence << ", cut " << style.cut_parts;
    }
  }

 private:
  std::unique_ptr<Subject> subject_;
};

TEST_P(AttentionSuite, LengthsAroundEveryGrid) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  for (const int32_t length : {0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1025}) {
    SCOPED_TRACE(length);
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(length));
    for (int i = 0; i < 2; ++i) c.forest().add_sequence(c.add_node(-1, {length}), 1);
    judge(c, params_for(shape), shape.kv_heads);
  }
}

TEST_P(AttentionSuite, SharedLengthsAroundEveryGrid) {
  const Shape3 shape{.kv_heads = 1, .group = 1, .dim = 32};
  for (const int32_t shared : {16, 48, 64, 80, 496, 512, 528, 1024}) {
    for (const int32_t own : {0, 1, 16, 17, 65}) {
      SCOPED_TRACE(testing::Message() << shared << " + " << own);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(shared + own));
      const int32_t root = c.add_node(-1, {shared});
      for (int i = 0; i < 7; ++i) c.forest().add_sequence(c.add_node(root, {own}), 1);
      judge(c, params_for(shape), shape.kv_heads, 1);
    }
  }
}

TEST_P(AttentionSuite, EveryGroupSize) {
  for (int32_t group = 1; group <= 16; ++group) {
    SCOPED_TRACE(group);
    const Shape3 shape{.kv_heads = 2, .group = group, .dim = 32};
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(group));
    const int32_t root = c.add_node(-1, {96});
    for (const int32_t own : {5, 40, 23}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    judge(c, params_for(shape), shape.kv_heads, 1);
  }
}

TEST_P(AttentionSuite, EveryHeadDimAndPageType) {
  for (const DType type : {DType::kBF16, DType::kF32}) {
    for (const int32_t dim : {8, 24, 32, 64, 80, 96, 128, 256}) {
      const Shape3 shape{.kv_heads = 1, .group = 3, .dim = dim, .type = type};
      if (GetParam() == std::string("kernel/emulated") && type != DType::kBF16) continue;
      SCOPED_TRACE(testing::Message() << dtype_name(type) << " " << dim);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(dim));
      const int32_t root = c.add_node(-1, {80});
      for (const int32_t own : {1, 37, 80}) c.forest().add_sequence(c.add_node(root, {own}), 1);
      judge(c, params_for(shape), shape.kv_heads, 1);
    }
  }
}

TEST_P(AttentionSuite, RandomTreesEvenAndRagged) {
  for (uint32_t seed = 0; seed < 24; ++seed) {
    SCOPED_TRACE(seed);
    const bool ragged = seed % 2 == 1;
    const Shape3 shape{.layers = 2,
                       .kv_heads = 1 + static_cast<int32_t>(seed % 3),
                       .group = 1 + static_cast<int32_t>(seed % 5),
                       .dim = 32};
    Case c(subject(), shape, Data::kOrdinary, seed, 6000);
    grow(c, shape, ragged, -1, 4);
    const int32_t window = seed % 4 < 2 ? 0 : c.uniform(1, 200);
    judge(c, params_for(shape, static_cast<int32_t>(seed / 2 % 2), window), shape.kv_heads);
  }
}

TEST_P(AttentionSuite, PrefillDiagonals) {
  const Shape3 shape{.kv_heads = 1, .group = 4, .dim = 32};
  for (const int32_t rows : {1, 7, 64, 150}) {
    for (const int32_t window : {0, 33}) {
      SCOPED_TRACE(testing::Message() << rows << " rows, window " << window);
      Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(rows));
      const int32_t root = c.add_node(-1, {496});
      c.forest().add_sequence(c.add_node(root, {rows + 3}), rows);
      c.forest().add_sequence(c.add_node(root, {9}), 1);
      judge(c, params_for(shape, 0, window), shape.kv_heads, 1);
    }
  }
}

TEST_P(AttentionSuite, Windows) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  for (const int32_t window : {1, 15, 16, 17, 64, 512, 600, 5000}) {
    SCOPED_TRACE(window);
    Case c(subject(), shape, Data::kOrdinary, static_cast<uint32_t>(window));
    const int32_t root = c.add_node(-1, {1024});
    for (const int32_t own : {0, 1, 30, 200}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    judge(c, params_for(shape, 0, window), shape.kv_heads, 1);
  }
}

TEST_P(AttentionSuite, HardData) {
  for (const Data data : {Data::kLargeKeys, Data::kEqualScores}) {
    const Shape3 shape{.kv_heads = 2, .group = 2, .dim = 64};
    Case c(subject(), shape, data, 7);
    const int32_t root = c.add_node(-1, {640});
    const int32_t empty = c.add_node(root, {0});
    for (const int32_t own : {0, 3, 100}) c.forest().add_sequence(c.add_node(empty, {own}), 1);
    judge(c, params_for(shape), shape.kv_heads);
  }
}

TEST_P(AttentionSuite, ARowThatSeesNothingIsZero) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 1);
  c.forest().add_sequence(c.add_node(-1, {0}), 1);
  c.make_queries();
  const auto out = c.run(c.forest().plan(1, kTwoPhase, c.random()), params_for(shape));
  for (const float x : out[0]) EXPECT_EQ(x, 0.0f);
}

TEST_P(AttentionSuite, OneAndTwoThreadsAndManyAreBitEqual) {
  // One head: fewer items than threads, so slots are split at multiples of R.
  for (const int32_t kv_heads : {1, 3}) {
    const Shape3 shape{.kv_heads = kv_heads, .group = 4, .dim = 64};
    Case c(subject(), shape, Data::kOrdinary, 3, 2000);
    const int32_t root = c.add_node(-1, {2064});
    for (const int32_t own : {1, 700, 65}) c.forest().add_sequence(c.add_node(root, {own}), 1);
    c.make_queries();
    const CasePlan plan = c.forest().plan(kv_heads, kTwoPhase, c.random());
    const Case::Output one = c.run(plan, params_for(shape));
    EXPECT_LE(relative_error(one, c.expected(params_for(shape))), kBar);
    for (const int threads : {2, 5}) {
      const auto team = another(threads);
      EXPECT_TRUE(same_bits(one, c.run(*team, plan, params_for(shape)))) << threads << " threads";
    }
  }
}

TEST_P(AttentionSuite, ManyRowsAreCutIntoBlocks) {
  const Shape3 shape{.kv_heads = 1, .group = 16, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 5);
  const int32_t root = c.add_node(-1, {160});
  for (int i = 0; i < 30; ++i) c.forest().add_sequence(c.add_node(root, {1 + i}), 1);
  judge(c, params_for(shape), shape.kv_heads, 1);
}

TEST_P(AttentionSuite, NoRowsDoesNothing) {
  const Shape3 shape{.kv_heads = 1, .group = 2, .dim = 32};
  Case c(subject(), shape, Data::kOrdinary, 1);
  AttentionPlan plan;
  plan.kv_heads = 1;
  float nothing = 1.0f;
  const TensorView empty(&nothing, DType::kF32, {0, 2, 32});
  subject().attention(empty, params_for(shape), plan, c.forest().arena(), empty);
  EXPECT_EQ(nothing, 1.0f);
}

// --- pages

TEST_P(AttentionSuite, PagesReadBackWhatWasWritten) {
  for (const DType type : {DType::kBF16, DType::kF32}) {
    for (const int32_t dim : {8, 20, 64, 80, 256}) {
      const auto layout = subject().kv_layout(type, dim);
      ASSERT_TRUE(layout);
      const int32_t slots = layout->page_slots, heads = 3;
      auto memory = Buffer::allocate(layout->page_bytes * heads * 2);
      ASSERT_TRUE(memory);
      const KvArena arena{memory->data(), *layout};
      const std::vector<PageId> pages{4, 1, 0};
      AttentionPlan plan;
      plan.rows = slots - 3;
      plan.kv_heads = heads;
      plan.parts.push_back(
          {.pages = pages.data(), .page_stride = 1, .start = 32, .count = plan.rows});
      std::vector<float> k, v;
      for (int32_t row = 0; row < plan.rows; ++row) {
        plan.targets.push_back({0, 32 + (row + 5) % plan.rows});
        for (int32_t i = 0; i < heads * dim; ++i) {
          k.push_back(static_cast<float>(row * 7 + i) * 0.37f);
          v.push_back(static_cast<float>(row * 3 - i) * 0.53f);
        }
      }
      const Shape shape{plan.rows, heads, dim};
      subject().write_kv({k.data(), DType::kF32, shape}, {v.data(), DType::kF32, shape}, 0, plan,
                         arena);
      for (int32_t head = 0; head < heads; ++head) {
        std::vector<float> got_k(static_cast<size_t>(plan.rows * dim)), got_v = got_k;
        const Shape page{plan.rows, dim};
        subject().read_page(arena, pages[static_cast<size_t>(head)], plan.rows,
                            {got_k.data(), DType::kF32, page}, {got_v.data(), DType::kF32, page});
        for (int32_t row = 0; row < plan.rows; ++row) {
          const int32_t slot = (row + 5) % plan.rows;
          for (int32_t d = 0; d < dim; ++d) {
            const auto from = static_cast<size_t>((row * heads + head) * dim + d);
            const auto to = static_cast<size_t>(slot * dim + d);
            ASSERT_EQ(got_k[to], rounded(type, k[from])) << "slot " << slot << " d " << d;
            ASSERT_EQ(got_v[to], rounded(type, v[from])) << "slot " << slot << " d " << d;
          }
        }
      }
    }
  }
}

TEST_P(AttentionSuite, CopiedSlotsAreThoseAndNoOthers) {
  for (const DType type : {DType::kBF16, DType::kF32}) {
    const auto layout = subject().kv_layout(type, 32);
    ASSERT_TRUE(layout);
    const int32_t slots = layout->page_slots;
    auto memory = Buffer::allocate(layout->page_bytes * 2);
    ASSERT_TRUE(memory);
    const KvArena arena{memory->data(), *layout};
    const Shape shape{slots, 1, 32}, page{slots, 32};
    const auto fill = [&](PageId id, float base) {
      AttentionPlan plan;
      plan.rows = slots;
      plan.kv_heads = 1;
      plan.parts.push_back({.pages = &id, .page_stride = 1, .count = slots});
      std::vector<float> k(static_cast<size_t>(slots) * 32), v = k;
      for (int32_t row = 0; row < slots; ++row) {
        plan.targets.push_back({0, row});
        std::fill_n(k.begin() + row * 32, 32, base + static_cast<float>(row));
        std::fill_n(v.begin() + row * 32, 32, -base - static_cast<float>(row));
      }
      subject().write_kv({k.data(), DType::kF32, shape}, {v.data(), DType::kF32, shape}, 0, plan,
                         arena);
    };
    for (int32_t count = 0; count < slots; ++count) {
      fill(0, 1.0f);
      fill(1, 64.0f);
      subject().copy_slots(arena, 0, 1, count);
      std::vector<float> k(static_cast<size_t>(slots) * 32), v = k;
      subject().read_page(arena, 1, slots, {k.data(), DType::kF32, page},
                          {v.data(), DType::kF32, page});
      for (int32_t slot = 0; slot < slots; ++slot) {
        const float want = (slot < count ? 1.0f : 64.0f) + static_cast<float>(slot);
        for (int32_t d = 0; d < 32; ++d) {
          ASSERT_EQ(k[static_cast<size_t>(slot * 32 + d)], want) << count << " copied";
          ASSERT_EQ(v[static_cast<size_t>(slot * 32 + d)], -want) << count << " copied";
        }
      }
    }
  }
}

TEST_P(AttentionSuite, ZeroedPagesAreZeroAndNeighboursAreNot) {
  const auto layout = subject().kv_layout(DType::kBF16, 64);
  ASSERT_TRUE(layout);
  auto memory = Buffer::allocate(layout->page_bytes * 3);
  ASSERT_TRUE(memory);
  std::memset(memory->data(), 0x11, static_cast<size_t>(memory->bytes()));
  const KvArena arena{memory->data(), *layout};
  const PageId middle = 1;
  subject().zero_pages(arena, {&middle, 1});
  for (int64_t at = 0; at < memory->bytes(); ++at) {
    const bool zeroed = at / layout->page_bytes == 1;
    ASSERT_EQ(memory->data()[at], zeroed ? std::byte{0} : std::byte{0x11}) << "byte " << at;
  }
}

TEST_P(AttentionSuite, RefusesWhatNoPageHolds) {
  for (const DType type : {DType::kI8, DType::kF16}) {
    const auto layout = subject().kv_layout(type, 64);
    ASSERT_FALSE(layout);
    EXPECT_EQ(layout.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(layout.error().message.find(dtype_name(type)), std::string::npos);
    EXPECT_NE(layout.error().message.find("bf16"), std::string::npos);
  }
  EXPECT_FALSE(subject().kv_layout(DType::kBF16, 0));
  EXPECT_FALSE(subject().kv_layout(DType::kBF16, -64));
}

INSTANTIATE_TEST_SUITE_P(, AttentionSuite,
                         testing::Values("ref", "cpu", "kernel/avx2", "kernel/avx512",
                                         "kernel/avx512bf16", "kernel/emulated"),
                         [](const auto& subject) {
                           std::string name = subject.param;
                           std::replace(name.begin(), name.end(), '/', '_');
                           return name;
                         });

// --- the canary: a fold in another order must be seen by what the suite compares

TEST(AttentionCanary, ReversedFoldIsAccurateAndNotBitEqual) {
  const auto subject = reversed_subject();
  const Shape3 shape{.kv_heads = 2, .group = 2, .dim = 32};
  int differing = 0;
  for (uint32_t seed = 0; seed < 8; ++seed) {
    Case c(*subject, shape, Data::kOrdinary, seed);
    grow(c, shape, false, -1, 4);
    c.make_queries();
    const auto whole = c.run(c.forest().plan(2, kTwoPhase, c.random()), params_for(shape));
    EXPECT_LE(relative_error(whole, c.expected(params_for(shape))), kBar);
    const auto cut = c.run(c.forest().plan(2, kCut, c.random()), params_for(shape));
    differing += same_bits(whole, cut) ? 0 : 1;
  }
  EXPECT_GE(differing, 6);
}

// The two instruction sets without a bf16 dot promise the same bits.
TEST(AttentionKernels, Avx2AndAvx512AreBitEqual) {
  const auto avx2 = make_subject("kernel/avx2", 1), avx512 = make_subject("kernel/avx512", 1);
  if (avx2 == nullptr || avx512 == nullptr) GTEST_SKIP() << "needs both";
  const Shape3 shape{.kv_heads = 2, .group = 3, .dim = 64};
  Case c(*avx2, shape, Data::kOrdinary, 11);
  grow(c, shape, false, -1, 4);
  c.make_queries();
  const CasePlan plan = c.forest().plan(2, kTwoPhase, c.random());
  EXPECT_TRUE(same_bits(c.run(plan, params_for(shape)), c.run(*avx512, plan, params_for(shape))));
}

}  // namespace
}  // namespace coppice::ops
