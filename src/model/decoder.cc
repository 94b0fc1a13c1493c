#include "model/decoder.h"

#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "model/activations.h"
#include "model/layers.h"

namespace coppice::model {
namespace {

bool is_gated(const ForwardInput& input) { return input.gated != nullptr && !input.gated->empty(); }

struct DecoderWeights {
  std::unique_ptr<ops::Weight> embed_tokens;  // [V, E]
  std::vector<DecoderLayer> layers;           // [L]
  Vector norm;                                // [E]
  std::unique_ptr<ops::Weight> lm_head;       // [V, E], or null: tied to embed_tokens

  void want(const ModelConfig& config, WeightLoader& loader);
};

class Decoder : public Model {
 public:
  Decoder(const ModelConfig& config, ops::Backend& backend, const ModelOptions& options)
      : config_(config), backend_(backend), options_(options) {}

  Status load(const Checkpoint& checkpoint, const LoadProgress& progress);

  const ModelConfig& config() const override { return config_; }
  int64_t weight_bytes() const override { return weight_bytes_; }
  int64_t activation_bytes() const override { return Activations::bytes_for(config_, options_); }
  TensorView forward(const ForwardInput& input) override;

 private:
  bool is_last(size_t layer) const { return layer + 1 == weights_.layers.size(); }
  void check(const ForwardInput& input) const;
  void embed(const ForwardInput& input, const StepViews& s);
  GateInput prepare_gate(const ForwardInput& input);
  void keys_and_values(size_t layer, const ForwardInput& input, const GateInput* gated,
                       const StepViews& s);
  void attend(size_t layer, const ForwardInput& input, const StepViews& s);
  StepViews keep_rows(std::span<const int32_t> rows, const StepViews& s);
  void finish_layer(size_t layer, const StepViews& s);
  TensorView head(const StepViews& s);

  float eps() const { return static_cast<float>(config_.rms_norm_eps); }
  void norm_heads(const TensorView& x, const Vector& weight);
  // What is normed after layer `layer`'s output has joined x.
  const Vector& norm_after(size_t layer) const {
    return is_last(layer) ? weights_.norm : weights_.layers[layer + 1].input_layernorm;
  }

  ModelConfig config_;
  ops::Backend& backend_;
  ModelOptions options_;
  DecoderWeights weights_;
  Activations activations_;
  int64_t weight_bytes_ = 0;
};

void DecoderWeights::want(const ModelConfig& config, WeightLoader& loader) {
  loader.want("model.embed_tokens.weight", config.vocab_size, config.hidden_size, embed_tokens);
  layers.resize(static_cast<size_t>(config.num_hidden_layers));
  for (size_t i = 0; i < layers.size(); ++i) {
    layers[i].want(config, "model.layers." + std::to_string(i) + ".", loader);
  }
  loader.want("model.norm.weight", config.hidden_size, norm);
  if (config.tie_word_embeddings) {
    loader.ignore("lm_head.weight");
  } else {
    loader.want("lm_head.weight", config.vocab_size, config.hidden_size, lm_head);
  }
}

Status Decoder::load(const Checkpoint& checkpoint, const LoadProgress& progress) {
  WeightLoader loader(checkpoint, options_.weights);
  weights_.want(config_, loader);
  const MemoryRoom room{.limit = options_.memory_limit,
                        .now = options_.scratch_bytes,
                        .later = activation_bytes() + options_.page_bytes};
  TRY(weight_bytes_, loader.load(backend_, room, progress));
  TRY(activations_, Activations::create(backend_, config_, options_));
  return {};
}

void Decoder::check(const ForwardInput& input) const {
  const size_t rows = input.tokens.size();
  CHECK(rows <= static_cast<size_t>(options_.max_rows));
  CHECK(input.positions.size() == rows && input.plan.rows == static_cast<int32_t>(rows));
  CHECK(input.owners.empty() || input.owners.size() == rows);
  CHECK(input.logit_rows.size() <= static_cast<size_t>(options_.max_logit_rows));
  CHECK(input.logit_rows.size() <= rows);
  for (const int32_t owner : input.owners) {
    CHECK(owner >= 0 && static_cast<size_t>(owner) < input.evaluated.size());
  }
  CHECK(input.plan.kv_heads == config_.num_key_value_heads);
  CHECK(input.arena.layout.head_dim == config_.head_dim);
  if (!is_gated(input)) return;
  CHECK(input.gate != nullptr && options_.gate && input.gate->needs() == *options_.gate);
  CHECK(input.gated->plan == &input.plan && input.plan.gated());
}

TensorView Decoder::forward(const ForwardInput& input) {
  check(input);
  StepViews s = activations_.step(input.plan.rows);
  embed(input, s);
  rotary_angles(input.positions, config_.rope_inv_freq, s.cos, s.sin);
  std::optional<GateInput> gated;
  if (is_gated(input)) gated = prepare_gate(input);
  for (size_t i = 0; i < weights_.layers.size(); ++i) {
    keys_and_values(i, input, gated ? &*gated : nullptr, s);
    // Nobody reads the last layer's output but the rows that ask for logits.
    if (is_last(i) && input.logit_rows.empty()) break;
    attend(i, input, s);
    if (is_last(i)) s = keep_rows(input.logit_rows, s);
    finish_layer(i, s);
  }
  if (input.logit_rows.empty()) return activations_.host_logits(0);
  return head(s);
}

// x = embedding of the tokens, h = its norm. What enters here is what was evaluated: it is counted
// here.
void Decoder::embed(const ForwardInput& input, const StepViews& s) {
  for (const int32_t owner : input.owners) ++input.evaluated[static_cast<size_t>(owner)];
  backend_.embed(input.tokens, *weights_.embed_tokens, s.x);
  backend_.rms_norm(s.x, weights_.layers.front().input_layernorm.view, eps(), s.h);
}

// What the gate is given in every layer.
GateInput Decoder::prepare_gate(const ForwardInput& input) {
  GateInput gated = activations_.gate_input(input.plan.rows);
  gated.tokens = input.tokens;
  if (!gated.cos.empty()) {
    rotary_angles(input.positions, input.gate->rope_inv_freq(), gated.cos, gated.sin);
  }
  return gated;
}

// From h: k and v go to the pages, q stays. gated: where the gate says to which, or null.
void Decoder::keys_and_values(size_t layer, const ForwardInput& input, const GateInput* gated,
                              const StepViews& s) {
  const Attention& attention = weights_.layers[layer].attention;
  const Linear &q = attention.q_proj, &k = attention.k_proj, &v = attention.v_proj;
  const auto number = static_cast<int32_t>(layer);
  // Without a weight of the gate's the fourth product is not asked for.
  const ops::Weight* gate = gated == nullptr ? nullptr : input.gate->weight(number);
  const ops::Product products[] = {{*q.weight, q.bias.view, s.q},
                                   {*k.weight, k.bias.view, s.k},
                                   {*v.weight, v.bias.view, s.v},
                                   {gate == nullptr ? *q.weight : *gate, {}, s.gate_columns}};
  backend_.matmul_each(s.h, std::span(products).first(gate == nullptr ? 3 : 4));
  norm_heads(s.q, attention.q_norm);
  norm_heads(s.k, attention.k_norm);
  if (gated != nullptr) {
    if (gate != nullptr) backend_.to_host(s.gate_columns, gated->columns.raw());
    if (!gated->keys.empty()) backend_.to_host(s.k, gated->keys.raw());
    input.gate->decide(number, *gated, *input.gated);
  }
  const int64_t rows = input.plan.rows, dim = config_.head_dim;
  const Shape queries{rows, config_.num_attention_heads, dim};
  const Shape keys{rows, config_.num_key_value_heads, dim};
  backend_.rope_write_kv(s.q.reshaped(queries), s.k.reshaped(keys), s.v.reshaped(keys), s.cos,
                         s.sin, number, input.plan, input.arena);
}

// Each head of x [T, H D], where the model norms them.
void Decoder::norm_heads(const TensorView& x, const Vector& weight) {
  if (weight.view.empty()) return;
  const int64_t heads = x.elements() / config_.head_dim;
  const TensorView each = x.reshaped({heads, config_.head_dim});
  backend_.rms_norm(each, weight.view, eps(), each);
}

// a = attention of q over what each row sees.
void Decoder::attend(size_t layer, const ForwardInput& input, const StepViews& s) {
  const ops::AttentionParams params{
      .layer = static_cast<int32_t>(layer),
      .scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(config_.head_dim)))};
  const Shape heads{input.plan.rows, config_.num_attention_heads, config_.head_dim};
  backend_.attention(s.q.reshaped(heads), params, input.plan, input.arena, s.a.reshaped(heads));
}

// The rest of the step has only these rows. x and a move to h's and q's place, and those to theirs.
StepViews Decoder::keep_rows(std::span<const int32_t> rows, const StepViews& s) {
  StepViews kept = activations_.step(static_cast<int64_t>(rows.size()));
  std::swap(kept.x, kept.h);
  std::swap(kept.a, kept.q);
  backend_.gather_rows(s.x, rows, kept.x);
  backend_.gather_rows(s.a, rows, kept.a);
  return kept;
}

// x += o(a); x += mlp(norm(x)); h = the norm that comes next.
void Decoder::finish_layer(size_t index, const StepViews& s) {
  const DecoderLayer& layer = weights_.layers[index];
  const Linear& o_proj = layer.attention.o_proj;
  backend_.matmul(s.a, *o_proj.weight, o_proj.bias.view, s.h);
  backend_.add_rms_norm(s.x, s.h, layer.post_attention_layernorm.view, eps(), s.h);
  const ops::Product products[] = {{*layer.mlp.gate_proj, {}, s.gate},
                                   {*layer.mlp.up_proj, {}, s.up}};
  backend_.matmul_each(s.h, products);
  backend_.swiglu(s.gate, s.up, s.gate);
  backend_.matmul(s.gate, *layer.mlp.down_proj, {}, s.h);
  backend_.add_rms_norm(s.x, s.h, norm_after(index).view, eps(), s.h);
}

// logits = lm_head(h), on the host.
TensorView Decoder::head(const StepViews& s) {
  const int64_t rows = s.x.shape()[0];
  const TensorView logits = activations_.logits(rows);
  backend_.matmul(s.h, weights_.lm_head ? *weights_.lm_head : *weights_.embed_tokens, {}, logits);
  const TensorView host = activations_.host_logits(rows);
  backend_.to_host(logits, host.raw());
  return host;
}

}  // namespace

Status check_decoder(const Checkpoint& checkpoint) {
  WeightLoader loader(checkpoint);
  DecoderWeights weights;
  weights.want(checkpoint.config(), loader);
  return loader.check();
}

Expected<std::unique_ptr<Model>> load_decoder(const Checkpoint& checkpoint, ops::Backend& backend,
                                              const ModelOptions& options,
                                              const LoadProgress& progress) {
  auto decoder = std::make_unique<Decoder>(checkpoint.config(), backend, options);
  TRY_STATUS(decoder->load(checkpoint, progress));
  return decoder;
}

}  // namespace coppice::model
