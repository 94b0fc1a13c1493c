#include "ops/cpu/onednn_weight.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <dnnl.hpp>
#include <map>
#include <random>
#include <tuple>
#include <vector>

#include "ops/lazy_memory.h"
#include "ops/weight_source.h"

// The two calls of the library's OpenMP runtime that are needed, without its compiler flag.
extern "C" {
int omp_get_max_threads();
void omp_set_num_threads(int);
}

namespace coppice::ops::cpu {
namespace {

// Heights of a piece, tallest first.
constexpr std::array<int64_t, 7> kHeights{64, 32, 16, 8, 4, 2, 1};
constexpr int64_t kSlice = OneDnnWeight::kSlice;

// While it lives, what oneDNN makes or runs on this thread uses this thread alone.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThread() { omp_set_num_threads(before_); }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

dnnl::memory::data_type library_type(DType type) {
  return type == DType::kBF16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
}

void store(DType type, std::byte* to, int64_t i, float x) {
  if (type == DType::kBF16) {
    reinterpret_cast<bf16*>(to)[i] = to_bf16(x);
  } else {
    reinterpret_cast<float*>(to)[i] = x;
  }
}

float load(DType type, const std::byte* from, int64_t i) {
  return type == DType::kBF16 ? to_float(reinterpret_cast<const bf16*>(from)[i])
                              : reinterpret_cast<const float*>(from)[i];
}

// Where element (k, n) of a packed matrix lies: oneDNN's own description of its blocks.
int64_t element_offset(const dnnl::memory::desc& desc, int64_t k, int64_t n) {
  const dnnl_blocking_desc_t& blocks = desc.data.format_desc.blocking;
  std::array<int64_t, 2> position{k, n};
  int64_t offset = desc.data.offset0, step = 1;
  for (int i = blocks.inner_nblks - 1; i >= 0; --i) {
    int64_t& at = position[static_cast<size_t>(blocks.inner_idxs[i])];
    offset += at % blocks.inner_blks[i] * step;
    at /= blocks.inner_blks[i];
    step *= blocks.inner_blks[i];
  }
  return offset + position[0] * blocks.strides[0] + position[1] * blocks.strides[1];
}

// The height of the next piece: padding is cheaper than several short pieces up to a quarter.
int64_t piece_height(int64_t left) {
  for (size_t i = kHeights.size(); i-- > 0;) {
    if (kHeights[i] >= left && left * 4 >= kHeights[i] * 3) return kHeights[i];
  }
  return *std::find_if(kHeights.begin(), kHeights.end(), [&](int64_t h) { return h <= left; });
}

// What one thread hands to one primitive. Only x moves from call to call.
struct Arguments {
  dnnl::memory x;           // [height, K], somewhere in the inputs
  dnnl::memory out;         // [height, columns], the thread's piece
  dnnl::memory scratchpad;  // the thread's, which may grow while weights are packed
};

// A slice [K, columns] of any weight: its layout, and the primitives that multiply by it.
struct SliceShape {
  int64_t columns = 0;
  dnnl::memory::desc weights;  // packed
  std::array<dnnl::matmul::primitive_desc, kHeights.size()> descs;
  std::array<dnnl::matmul, kHeights.size()> products;
  std::vector<std::array<Arguments, kHeights.size()>> arguments;  // per thread
};

}  // namespace

struct OneDnn::State {
  struct Thread {
    dnnl::stream stream;
    Buffer scratchpad;
    Buffer piece;  // what a primitive writes, [64, kSlice] f32
  };

  const SliceShape& shape(DType type, int64_t cols, int64_t columns);
  Status grow_scratchpads(const SliceShape& shape);
  Status grow_inputs(DType type, int64_t rows, int64_t cols);
  void multiply(const SliceShape& shape, size_t height, const dnnl::memory& weights,
                const std::byte* x, int32_t thread);

  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  std::vector<Thread> threads;
  Buffer inputs;  // x of a call in the weights' type, [T padded, K]
  std::map<std::tuple<DType, int64_t, int64_t>, SliceShape> shapes;  // by type, K, columns
};

OneDnn::OneDnn(std::unique_ptr<State> state) : state_(std::move(state)) {}
OneDnn::~OneDnn() = default;

Expected<std::unique_ptr<OneDnn>> OneDnn::make(int threads) {
  try {
    // Tiles of newer CPUs would be another arithmetic under the same name of instruction set.
    // Refused where the library is in use already; the probe sees the implementation then.
    (void)dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
    auto state = std::make_unique<State>();
    for (int i = 0; i < threads; ++i) {
      State::Thread& thread = state->threads.emplace_back();
      thread.stream = dnnl::stream(state->engine);
      TRY(thread.piece, Buffer::allocate(dtype_bytes(DType::kF32, kHeights.front() * kSlice)));
    }
    return std::unique_ptr<OneDnn>(new OneDnn(std::move(state)));
  } catch (const dnnl::error& error) {
    return fail(ErrorCode::kInternal, std::string("oneDNN: ") + error.what());
  }
}

Status OneDnn::reserve(DType type, int64_t rows, int64_t cols) {
  return state_->grow_inputs(type, rows, cols);
}

int64_t OneDnn::scratch_bytes() const {
  int64_t bytes = state_->inputs.bytes();
  for (const State::Thread& thread : state_->threads) {
    bytes += thread.scratchpad.bytes() + thread.piece.bytes();
  }
  return bytes;
}

// Made on first use; throws what the library throws.
const SliceShape& OneDnn::State::shape(DType type, int64_t cols, int64_t columns) {
  using dnnl::memory;
  const auto known = shapes.find({type, cols, columns});
  if (known != shapes.end()) return known->second;
  const memory::data_type element = library_type(type);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  SliceShape made;
  made.columns = columns;
  made.weights = memory::desc({cols, columns}, element, memory::format_tag::any);
  made.arguments.resize(threads.size());
  for (size_t i = 0; i < kHeights.size(); ++i) {
    const memory::desc x({kHeights[i], cols}, element, memory::format_tag::ab);
    const memory::desc out({kHeights[i], columns}, memory::data_type::f32, memory::format_tag::ab);
    made.descs[i] = {{x, made.weights, out}, attributes, engine};
    // The tallest piece chooses the layout, the others must take it.
    if (i == 0) made.weights = made.descs[i].weights_desc();
    made.products[i] = dnnl::matmul(made.descs[i]);
    for (size_t thread = 0; thread < threads.size(); ++thread) {
      made.arguments[thread][i] = {
          memory(x, engine, DNNL_MEMORY_NONE), memory(out, engine, threads[thread].piece.data()),
          memory(made.descs[i].scratchpad_desc(), engine, DNNL_MEMORY_NONE)};
    }
  }
  return shapes.emplace(std::tuple(type, cols, columns), std::move(made)).first->second;
}

Status OneDnn::State::grow_scratchpads(const SliceShape& shape) {
  size_t most = 0;
  for (const auto& desc : shape.descs) most = std::max(most, desc.scratchpad_desc().get_size());
  for (Thread& thread : threads) {
    TRY_STATUS(grow_lazily(thread.scratchpad, static_cast<int64_t>(most)));
  }
  return {};
}

Status OneDnn::State::grow_inputs(DType type, int64_t rows, int64_t cols) {
  return grow_lazily(inputs, dtype_bytes(type, (rows + kHeights.front()) * cols));
}

// The thread's piece [height, columns] = x [height, K] . weights. The calls of the C interface,
// because those of C++ build a map of arguments each time.
void OneDnn::State::multiply(const SliceShape& shape, size_t height, const dnnl::memory& weights,
                             const std::byte* x, int32_t thread) {
  const OneThread alone;
  const Thread& own = threads[static_cast<size_t>(thread)];
  const Arguments& given = shape.arguments[static_cast<size_t>(thread)][height];
  const auto place = [](const dnnl::memory& memory, const std::byte* data) {
    CHECK(dnnl_memory_set_data_handle(memory.get(), const_cast<std::byte*>(data)) == dnnl_success);
  };
  place(given.x, x);
  place(given.scratchpad, own.scratchpad.data());
  const std::array<dnnl_exec_arg_t, 4> arguments{{{DNNL_ARG_SRC, given.x.get()},
                                                  {DNNL_ARG_WEIGHTS, weights.get()},
                                                  {DNNL_ARG_DST, given.out.get()},
                                                  {DNNL_ARG_SCRATCHPAD, given.scratchpad.get()}}};
  const dnnl_status_t done =
      dnnl_primitive_execute(shape.products[height].get(), own.stream.get(),
                             static_cast<int>(arguments.size()), arguments.data());
  CHECK(done == dnnl_success && dnnl_stream_wait(own.stream.get()) == dnnl_success &&
        "a oneDNN primitive that was probed has failed");
}

struct OneDnnWeight::State {
  State(OneDnn::State& onednn, DType weights_type, int64_t n, int64_t k)
      : library(onednn), type(weights_type), rows(n), cols(k) {}

  int64_t slices() const { return (rows + kSlice - 1) / kSlice; }
  const SliceShape& shape(int64_t slice) const { return *shapes[slice + 1 == slices() ? 1 : 0]; }
  std::byte* slice_data(int64_t slice) const { return packed.data() + slice * slice_bytes; }
  void pack_slice(const TensorView& w, int64_t slice);

  OneDnn::State& library;
  DType type;
  int64_t rows, cols;
  std::array<const SliceShape*, 2> shapes{};  // of all slices but the last, and of the last
  int64_t slice_bytes = 0;
  Buffer packed;
  std::vector<dnnl::memory> weights;  // per slice
};

OneDnnWeight::OneDnnWeight(std::unique_ptr<State> state) : state_(std::move(state)) {}
OneDnnWeight::~OneDnnWeight() = default;

int64_t OneDnnWeight::rows() const { return state_->rows; }
int64_t OneDnnWeight::cols() const { return state_->cols; }
int64_t OneDnnWeight::bytes() const { return state_->packed.bytes(); }

// --- packing

void OneDnnWeight::State::pack_slice(const TensorView& w, int64_t slice) {
  const int64_t columns = shape(slice).columns;
  std::vector<float> row(static_cast<size_t>(cols));
  std::vector<std::byte> plain(static_cast<size_t>(dtype_bytes(type, columns * cols)));
  for (int64_t c = 0; c < columns; ++c) {
    widen_row(w, slice * kSlice + c, row.data());
    for (int64_t k = 0; k < cols; ++k) {
      store(type, plain.data(), c * cols + k, row[static_cast<size_t>(k)]);
    }
  }
  const dnnl::memory::desc layout({cols, columns}, library_type(type),
                                  dnnl::memory::format_tag::ba);
  dnnl::memory from(layout, library.engine, plain.data());
  dnnl::memory& to = weights.emplace_back(shape(slice).weights, library.engine, slice_data(slice));
  dnnl::stream stream(library.engine);
  dnnl::reorder(from, to).execute(stream, from, to);
  stream.wait();
}

Expected<std::unique_ptr<OneDnnWeight>> OneDnnWeight::pack(OneDnn& onednn, ThreadPool& pool,
                                                           const TensorView& w, DType type) {
  TRY_STATUS(check_weight_source(w));
  const int64_t rows = w.shape()[0], cols = w.shape()[1];
  if (rows == 0 || cols == 0) return fail(ErrorCode::kInternal, "oneDNN: an empty matrix");
  try {
    const OneThread alone;
    auto state = std::make_unique<State>(*onednn.state_, type, rows, cols);
    const int64_t last = rows - (state->slices() - 1) * kSlice;
    state->shapes = {&onednn.state_->shape(type, cols, state->slices() > 1 ? kSlice : last),
                     &onednn.state_->shape(type, cols, last)};
    for (const SliceShape* shape : state->shapes) {
      const auto bytes = static_cast<int64_t>(shape->weights.get_size());
      state->slice_bytes = std::max(state->slice_bytes, (bytes + 63) / 64 * 64);
      TRY_STATUS(onednn.state_->grow_scratchpads(*shape));
    }
    TRY(state->packed, allocate_lazily(state->slices() * state->slice_bytes));
    for (int64_t slice = 0; slice < state->slices(); ++slice) state->pack_slice(w, slice);
    return std::unique_ptr<OneDnnWeight>(new OneDnnWeight(std::move(state)));
  } catch (const dnnl::error& error) {
    return fail(ErrorCode::kInternal, std::string("oneDNN: ") + error.what());
  }
}

void OneDnnWeight::read_row(int64_t n, float* out) const {
  const int64_t slice = n / kSlice;
  for (int64_t k = 0; k < cols(); ++k) {
    const int64_t at = element_offset(state_->shape(slice).weights, k, n % kSlice);
    out[k] = load(state_->type, state_->slice_data(slice), at);
  }
}

// --- the product

void OneDnnWeight::prepare(ThreadPool& pool, const TensorView& x) const {
  const State& s = *state_;
  const int64_t rows = x.shape()[0];
  CHECK(s.library.grow_inputs(s.type, rows, s.cols));
  std::byte* inputs = s.library.inputs.data();
  const float* input = x.f32();
  const int64_t copies = count_runs(pool, rows, s.cols);
  pool.parallel_for(static_cast<int32_t>(copies), [&](int32_t i, int32_t) {
    const int64_t end = run_begin(rows, copies, i + 1) * s.cols;
    for (int64_t at = run_begin(rows, copies, i) * s.cols; at < end; ++at) {
      store(s.type, inputs, at, input[at]);
    }
  });
}

int64_t OneDnnWeight::part_count(const ThreadPool&, int64_t) const { return state_->slices(); }

void OneDnnWeight::multiply_part(const ProductPart& part) const {
  const State& s = *state_;
  if (part.index >= s.slices()) return;
  const int64_t slice = part.index, columns = s.shape(slice).columns;
  const auto& piece = s.library.threads[static_cast<size_t>(part.thread)].piece;
  for (int64_t row = 0; row < part.rows;) {
    const int64_t height = piece_height(part.rows - row);
    const auto index =
        static_cast<size_t>(std::find(kHeights.begin(), kHeights.end(), height) - kHeights.begin());
    s.library.multiply(s.shape(slice), index, s.weights[static_cast<size_t>(slice)],
                       s.library.inputs.data() + dtype_bytes(s.type, row * s.cols), part.thread);
    const int64_t end = std::min(part.rows, row + height);
    for (auto* from = reinterpret_cast<const float*>(piece.data()); row < end;
         ++row, from += columns) {
      float* to = part.out + row * s.rows + slice * kSlice;
      for (int64_t c = 0; c < columns; ++c) {
        to[c] = part.bias != nullptr ? from[c] + part.bias[slice * kSlice + c] : from[c];
      }
    }
  }
}

// --- the probe

namespace {

constexpr int64_t kProbedRows = 127;  // in pieces of 64, 32, 16, 8, 4, 2, 1, some of them padded

}  // namespace

// A slice in rows; or the probe's rows, their products, one row's alone and one more.
int64_t OneDnnWeight::loading_bytes(DType type, const Shape& shape, bool probed) {
  const int64_t rows = shape[0], cols = shape[1];
  const int64_t slice = dtype_bytes(type, std::min(rows, kSlice) * cols);
  const int64_t probe = dtype_bytes(DType::kF32, kProbedRows * (cols + rows) + 2 * rows);
  return probed ? slice : std::max(slice, probe);
}

std::string OneDnnWeight::probe(ThreadPool& pool, std::string_view implementation) const {
  for (const SliceShape* shape : state_->shapes) {
    for (size_t i = 0; i < kHeights.size(); ++i) {
      const std::string found = shape->descs[i].impl_info_str();
      if (found != implementation) {
        return "oneDNN chose " + found + " for " + std::to_string(kHeights[i]) + " rows";
      }
    }
  }
  std::vector<float> x(static_cast<size_t>(kProbedRows * cols()));
  std::mt19937 engine(1);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& value : x) value = to_float(to_bf16(uniform(engine)));
  const auto product = [&](int64_t begin, int64_t end) {
    std::vector<float> out(static_cast<size_t>((end - begin) * rows()));
    multiply(pool, {x.data() + begin * cols(), DType::kF32, {end - begin, cols()}}, {},
             {out.data(), DType::kF32, {end - begin, rows()}});
    return out;
  };
  const std::vector<float> alone = product(0, 1);
  for (const int64_t count : {2, 3, 4, 5, 7, 8, 12, 16, 21, 32, 48, 64, int{kProbedRows}}) {
    const std::vector<float> together = product(0, count);
    if (!std::equal(alone.begin(), alone.end(), together.begin())) {
      return "oneDNN gave a row other bits among " + std::to_string(count) + " rows";
    }
    const std::vector<float> last = product(count - 1, count);
    if (!std::equal(last.begin(), last.end(), together.end() - rows())) {
      return "oneDNN gave the last of " + std::to_string(count) + " rows other bits alone";
    }
  }
  std::vector<float> row(static_cast<size_t>(cols()));
  for (int64_t n = 0; n < rows(); n += std::max<int64_t>(rows() / 16, 1)) {
    read_row(n, row.data());
    double sum = 0, size = 0;
    for (size_t k = 0; k < row.size(); ++k) {
      sum += double{x[k]} * double{row[k]};
      size += std::abs(double{x[k]} * double{row[k]});
    }
    if (!(std::abs(sum - double{alone[static_cast<size_t>(n)]}) <= size * 1e-5)) {
      return "oneDNN's column " + std::to_string(n) + " is wrong";
    }
  }
  return {};
}

}  // namespace coppice::ops::cpu
