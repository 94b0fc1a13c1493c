#include "model/learned_gate.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "model/gate_file.h"
#include "model/rope_scaling.h"

namespace coppice::model {
namespace {

// a . b of n floats. The order of the sums is fixed, and made of lanes so that it is fast too.
float dot(const float* a, const float* b, int32_t n) {
  constexpr int32_t kLanes = 8;
  std::array<float, kLanes> sums{};
  int32_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int32_t lane = 0; lane < kLanes; ++lane) {
      sums[static_cast<size_t>(lane)] += a[i + lane] * b[i + lane];
    }
  }
  for (; i < n; ++i) sums[static_cast<size_t>(i % kLanes)] += a[i] * b[i];
  for (size_t half = kLanes / 2; half > 0; half /= 2) {
    for (size_t lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

class LearnedGate : public Gate {
 public:
  LearnedGate(const GateFile& file, std::vector<float> inv_freq)
      : header_(file.header()),
        hash_(file.hash()),
        path_(file.path()),
        inv_freq_(std::move(inv_freq)),
        query_(static_cast<size_t>(header_.width())),
        own_(static_cast<size_t>(2 * header_.width())),
        aggregate_(static_cast<size_t>(header_.width())) {}

  Status load(const GateFile& file, ops::Backend& backend);

  std::string describe() const override;
  uint64_t hash() const override { return hash_; }
  ops::GateRule rule(GateTier tier) const override {
    return {.threshold = header_.tier(tier).threshold,
            .window = header_.window,
            .sinks = header_.sinks};
  }
  bool decides_generated() const override { return header_.decode_gate; }
  const GateHeader* header() const override { return &header_; }
  GateNeeds needs() const override {
    return {.columns = columns(), .angles = static_cast<int32_t>(inv_freq_.size())};
  }
  int64_t weight_bytes() const override { return weight_bytes_; }
  const ops::Weight* weight(int32_t layer) const override {
    return layers_[static_cast<size_t>(layer)].rows.get();
  }
  std::span<const float> rope_inv_freq() const override { return inv_freq_; }
  int64_t memory_floats() const override { return int64_t{remembered()} * 2 * header_.width(); }

 protected:
  void fill_logits(int32_t layer, const GateInput& input, const ops::GateRows& rows) override;

 private:
  struct Layer {
    std::unique_ptr<ops::Weight> rows;  // [C, E] Ws, then Wq', Wk', Wv'
    std::vector<float> bias;            // [Hkv]
    std::vector<float> wo;              // [Hkv, r'], or empty
  };

  int32_t columns() const { return header_.num_key_value_heads + 3 * header_.width(); }
  bool is_global() const { return header_.kind == GateKind::kGlobal; }
  int32_t remembered() const { return is_global() ? 0 : std::max(0, header_.reach - 1); }  // tokens
  // k' [r'] and v' [r'] of the token at `position`, in a layer's memory.
  float* place(float* memory, int64_t position) const {
    return memory + position % remembered() * 2 * header_.width();
  }
  void rotate(const float* from, const float* cos, const float* sin, float* to) const;
  void attend_prompt(int32_t row, const GateInput& input, const ops::GateRows& rows);
  void attend(int64_t position, const float* columns, const float* cos, const float* sin,
              float* memory);
  void attend_head(int32_t head, int64_t position, float* memory);

  GateHeader header_;
  uint64_t hash_;
  std::string path_;
  std::vector<float> inv_freq_;  // [d'/2] or empty
  std::vector<Layer> layers_;    // [L]
  int64_t weight_bytes_ = 0;
  // Of the row in hand.
  std::vector<float> query_;      // [r'] rotated
  std::vector<float> own_;        // [2 r'] k' rotated, v'
  std::vector<float> aggregate_;  // [r']
  std::vector<float> shares_;     // global: [T]
};

Status LearnedGate::load(const GateFile& file, ops::Backend& backend) {
  const int64_t hidden = header_.hidden_size;
  TRY(const Buffer stacked, Buffer::allocate(dtype_bytes(DType::kF32, columns() * hidden)));
  float* const begin = reinterpret_cast<float*>(stacked.data());
  const std::vector<GateTensor> tensors = gate_tensors(header_);
  const size_t each = tensors.size() / static_cast<size_t>(header_.num_hidden_layers);
  for (size_t first = 0; first < tensors.size(); first += each) {
    Layer& layer = layers_.emplace_back();
    float* end = begin;
    for (size_t i = first; i < first + each; ++i) {
      TRY(const TensorData data, file.tensor(tensors[i]));
      const std::span<const float> values(data.view.f32(),
                                          static_cast<size_t>(data.view.elements()));
      if (tensors[i].name.ends_with(".b")) {
        layer.bias.assign(values.begin(), values.end());
      } else if (tensors[i].name.ends_with(".wo")) {
        layer.wo.assign(values.begin(), values.end());
      } else {
        end = std::copy(values.begin(), values.end(), end);
      }
    }
    CHECK(end == begin + columns() * hidden);
    TRY(layer.rows, backend.load_weight(stacked.view(DType::kF32, {columns(), hidden})));
    weight_bytes_ += layer.rows->bytes();
  }
  return {};
}

std::string LearnedGate::describe() const {
  std::string text = path_ + ": " + std::string(gate_kind_name(header_.kind)) + " gate";
  if (header_.kind == GateKind::kCausal) {
    text += " over " + std::to_string(header_.reach) + " tokens, " + std::to_string(header_.heads) +
            " heads of " + std::to_string(header_.head_dim);
  }
  return text + ", window " + std::to_string(header_.window) + ", sinks " +
         std::to_string(header_.sinks);
}

void LearnedGate::fill_logits(int32_t layer, const GateInput& input, const ops::GateRows& rows) {
  const Layer& weights = layers_[static_cast<size_t>(layer)];
  const int32_t heads = header_.num_key_value_heads, width = header_.width();
  float* const memory = rows.memory == nullptr ? nullptr : rows.memory + layer * memory_floats();
  CHECK(memory != nullptr || memory_floats() == 0);
  for (int32_t row = rows.row_begin; row < rows.row_end; ++row) {
    const float* const columns_of_row = input.columns.f32() + int64_t{row} * columns();
    if (is_global()) {
      attend_prompt(row, input, rows);
    } else if (width > 0) {
      const auto angles = static_cast<int64_t>(inv_freq_.size());
      attend(rows.position + row - rows.row_begin, columns_of_row + heads,
             input.cos.f32() + row * angles, input.sin.f32() + row * angles, memory);
    }
    for (int32_t head = 0; head < heads; ++head) {
      float logit = columns_of_row[head] + weights.bias[static_cast<size_t>(head)];
      if (width > 0) logit += dot(weights.wo.data() + head * width, aggregate_.data(), width);
      input.logits.f32()[int64_t{row} * heads + head] = logit;
    }
  }
}

// aggregate_ of the row over all rows of its sequence.
void LearnedGate::attend_prompt(int32_t row, const GateInput& input, const ops::GateRows& rows) {
  CHECK(rows.position == 0);
  const int32_t dim = header_.head_dim, width = header_.width();
  const float* const first = input.columns.f32() + header_.num_key_value_heads;
  const auto at = [&](int32_t r, int32_t part) {
    return first + int64_t{r} * columns() + part * width;
  };
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  shares_.resize(static_cast<size_t>(rows.row_end - rows.row_begin));
  std::ranges::fill(aggregate_, 0.0f);
  for (int32_t head = 0; head < width; head += dim) {
    float most = -INFINITY, sum = 0;
    for (int32_t r = rows.row_begin; r < rows.row_end; ++r) {
      float& share = shares_[static_cast<size_t>(r - rows.row_begin)];
      share = dot(at(row, 0) + head, at(r, 1) + head, dim) * scale;
      most = std::max(most, share);
    }
    for (float& share : shares_) sum += share = std::exp(share - most);
    for (int32_t r = rows.row_begin; r < rows.row_end; ++r) {
      const float share = shares_[static_cast<size_t>(r - rows.row_begin)] / sum;
      for (int32_t d = 0; d < dim; ++d) {
        aggregate_[static_cast<size_t>(head + d)] += share * at(r, 2)[head + d];
      }
    }
  }
}

// Each head [d'] of from [r'], its halves paired as in Backend::rope.
void LearnedGate::rotate(const float* from, const float* cos, const float* sin, float* to) const {
  const int32_t dim = header_.head_dim, half = dim / 2;
  for (int32_t head = 0; head < header_.heads; ++head) {
    const float* x = from + head * dim;
    float* y = to + head * dim;
    for (int32_t i = 0; i < half; ++i) {
      y[i] = x[i] * cos[i] - x[half + i] * sin[i];
      y[half + i] = x[half + i] * cos[i] + x[i] * sin[i];
    }
  }
}

// aggregate_ of the token at `position`; then the token itself is remembered, in the place of the
// one that the next token no longer reaches. columns: its q', k', v' [3 r'].
void LearnedGate::attend(int64_t position, const float* columns, const float* cos, const float* sin,
                         float* memory) {
  const int32_t width = header_.width();
  rotate(columns, cos, sin, query_.data());
  rotate(columns + width, cos, sin, own_.data());
  std::copy_n(columns + 2 * width, width, own_.data() + width);
  for (int32_t head = 0; head < header_.heads; ++head) attend_head(head, position, memory);
  if (remembered() > 0) std::copy(own_.begin(), own_.end(), place(memory, position));
}

void LearnedGate::attend_head(int32_t head, int64_t position, float* memory) {
  const int32_t dim = header_.head_dim, width = header_.width(), at = head * dim;
  const auto tokens = static_cast<int32_t>(std::min<int64_t>(header_.reach, position + 1));
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  // The oldest token first, the row's own last.
  std::array<const float*, GateLimits::kCausalReach> keys;
  std::array<float, GateLimits::kCausalReach> shares;
  float most = -INFINITY;
  for (int32_t i = 0; i < tokens; ++i) {
    const int64_t token = position - (tokens - 1 - i);
    const float* key = (token == position ? own_.data() : place(memory, token)) + at;
    const float score = dot(query_.data() + at, key, dim) * scale;
    keys[static_cast<size_t>(i)] = key;
    shares[static_cast<size_t>(i)] = score;
    most = std::max(most, score);
  }
  float* const out = aggregate_.data() + at;
  std::fill_n(out, dim, 0.0f);
  float sum = 0;
  for (int32_t i = 0; i < tokens; ++i) {
    const float share = std::exp(shares[static_cast<size_t>(i)] - most);
    const float* value = keys[static_cast<size_t>(i)] + width;
    for (int32_t d = 0; d < dim; ++d) out[d] += share * value[d];
    sum += share;
  }
  for (int32_t d = 0; d < dim; ++d) out[d] /= sum;
}

// --- what may be served, and on what

Status refuse_kind(const GateFile& file, bool evaluation) {
  const GateKind kind = file.header().kind;
  if (kind == GateKind::kPoint || kind == GateKind::kCausal) return {};
  if (kind == GateKind::kGlobal && evaluation) return {};
  return fail(ErrorCode::kUnsupported,
              file.path() + ": is a " + std::string(gate_kind_name(kind)) +
                  " gate: what it decides of a token depends on tokens that follow, so requests "
                  "that share a beginning would disagree on what is kept of it; point and causal "
                  "gates can be served");
}

Status check_sizes(const GateFile& file, const Checkpoint& base) {
  const GateHeader& header = file.header();
  const ModelConfig& config = base.config();
  const struct {
    const char* key;
    int32_t gate, model;
  } sizes[] = {{"hidden_size", header.hidden_size, config.hidden_size},
               {"num_hidden_layers", header.num_hidden_layers, config.num_hidden_layers},
               {"num_key_value_heads", header.num_key_value_heads, config.num_key_value_heads}};
  for (const auto& [key, gate, model] : sizes) {
    if (gate == model) continue;
    return fail(ErrorCode::kCorrupt, file.path() + ": is for models with " + key + " " +
                                         std::to_string(gate) + ", but " + base.path() + " has " +
                                         std::to_string(model));
  }
  return {};
}

Status check_base(const GateFile& file, const Checkpoint& base) {
  TRY(const std::string hash, base_hash(base));
  if (hash == file.header().base) return {};
  return fail(ErrorCode::kCorrupt,
              file.path() + ": was trained on a model with the hash " + file.header().base +
                  ", but " + base.path() + " has " + hash +
                  "; it would keep what another model needs (--gate-force takes it all the same)");
}

}  // namespace

Expected<std::unique_ptr<Gate>> open_learned_gate(const std::string& path, const Checkpoint& base,
                                                  ops::Backend& backend,
                                                  const GateOptions& options) {
  TRY(const GateFile file, GateFile::open(path));
  TRY_STATUS(refuse_kind(file, options.evaluation));
  TRY_STATUS(check_sizes(file, base));
  if (!options.any_base) TRY_STATUS(check_base(file, base));
  const GateHeader& header = file.header();
  std::vector<float> inv_freq =
      header.width() == 0 || header.kind == GateKind::kGlobal
          ? std::vector<float>()
          : rope_inverse_frequencies(header.rope_theta, header.head_dim, {});
  auto gate = std::make_unique<LearnedGate>(file, std::move(inv_freq));
  TRY_STATUS(gate->load(file, backend));
  return gate;
}

}  // namespace coppice::model
