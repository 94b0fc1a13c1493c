#include "model/activations.h"

#include <string>
#include <utility>

namespace coppice::model {
namespace {

constexpr int64_t kAlignment = 64;

// Hands out aligned [rows, width] f32 pieces one after another; without a base it only adds up.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  TensorView take(int64_t rows, int64_t width) {
    std::byte* piece = base_ == nullptr ? nullptr : base_ + bytes_;
    const int64_t bytes = dtype_bytes(DType::kF32, rows * width);
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return {static_cast<void*>(piece), DType::kF32, {rows, width}};
  }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* base_;
  int64_t bytes_ = 0;
};

TensorView take_if_any(Carver& carver, int64_t rows, int64_t width) {
  return width == 0 ? TensorView() : carver.take(rows, width);
}

StepViews carve_step(const ModelConfig& config, const ModelOptions& options, Carver& carver) {
  const int64_t rows = options.max_rows;
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t queries = int64_t{config.num_attention_heads} * config.head_dim;
  const int64_t keys = int64_t{config.num_key_value_heads} * config.head_dim;
  StepViews views;
  views.x = carver.take(rows, hidden);
  views.h = carver.take(rows, hidden);
  views.q = carver.take(rows, queries);
  views.a = carver.take(rows, queries);
  views.k = carver.take(rows, keys);
  views.v = carver.take(rows, keys);
  views.gate = carver.take(rows, inner);
  views.up = carver.take(rows, inner);
  views.cos = carver.take(rows, config.head_dim / 2);
  views.sin = carver.take(rows, config.head_dim / 2);
  if (options.gate) views.gate_columns = take_if_any(carver, rows, options.gate->columns);
  return views;
}

GateInput carve_gate(const ModelConfig& config, const ModelOptions& options, Carver& carver) {
  GateInput input;
  if (!options.gate) return input;
  const int64_t rows = options.max_rows, heads = config.num_key_value_heads;
  const GateNeeds& needs = *options.gate;
  input.columns = take_if_any(carver, rows, needs.columns);
  input.cos = take_if_any(carver, rows, needs.angles);
  input.sin = take_if_any(carver, rows, needs.angles);
  input.keys = take_if_any(carver, rows, needs.keys ? heads * config.head_dim : 0);
  input.logits = carver.take(rows, heads);
  return input;
}

TensorView first_rows(const TensorView& all, int64_t rows) {
  return all.empty() ? all : all.rows(0, rows);
}

int64_t backend_bytes(const ModelConfig& config, const ModelOptions& options) {
  Carver sum(nullptr);
  carve_step(config, options, sum);
  sum.take(options.max_logit_rows, config.vocab_size);
  return sum.bytes();
}

int64_t host_bytes(const ModelConfig& config, const ModelOptions& options) {
  Carver sum(nullptr);
  sum.take(options.max_logit_rows, config.vocab_size);
  carve_gate(config, options, sum);
  return sum.bytes();
}

}  // namespace

int64_t Activations::bytes_for(const ModelConfig& config, const ModelOptions& options) {
  return backend_bytes(config, options) + host_bytes(config, options);
}

Expected<Activations> Activations::create(ops::Backend& backend, const ModelConfig& config,
                                          const ModelOptions& options) {
  Expected<Buffer> memory = backend.allocate(backend_bytes(config, options));
  Expected<Buffer> host_memory = Buffer::allocate(host_bytes(config, options));
  if (!memory || !host_memory) {
    return fail(ErrorCode::kTooLarge,
                "no memory for the activations of " + std::to_string(options.max_rows) +
                    " rows and the logits of " + std::to_string(options.max_logit_rows) + ": " +
                    std::to_string(bytes_for(config, options)) + " bytes");
  }
  Activations made;
  made.memory_ = std::move(*memory);
  made.host_memory_ = std::move(*host_memory);
  Carver carver(made.memory_.data());
  made.largest_ = carve_step(config, options, carver);
  made.logits_ = carver.take(options.max_logit_rows, config.vocab_size);
  Carver host(made.host_memory_.data());
  made.host_logits_ = host.take(options.max_logit_rows, config.vocab_size);
  made.largest_gate_ = carve_gate(config, options, host);
  return made;
}

StepViews Activations::step(int64_t rows) const {
  const StepViews& all = largest_;
  return {.x = all.x.rows(0, rows),
          .h = all.h.rows(0, rows),
          .q = all.q.rows(0, rows),
          .a = all.a.rows(0, rows),
          .k = all.k.rows(0, rows),
          .v = all.v.rows(0, rows),
          .gate = all.gate.rows(0, rows),
          .up = all.up.rows(0, rows),
          .cos = all.cos.rows(0, rows),
          .sin = all.sin.rows(0, rows),
          .gate_columns = first_rows(all.gate_columns, rows)};
}

GateInput Activations::gate_input(int64_t rows) const {
  const GateInput& all = largest_gate_;
  return {.tokens = {},
          .columns = first_rows(all.columns, rows),
          .cos = first_rows(all.cos, rows),
          .sin = first_rows(all.sin, rows),
          .keys = first_rows(all.keys, rows),
          .logits = all.logits.rows(0, rows)};
}

TensorView Activations::logits(int64_t rows) const { return logits_.rows(0, rows); }
TensorView Activations::host_logits(int64_t rows) const { return host_logits_.rows(0, rows); }

}  // namespace coppice::model
