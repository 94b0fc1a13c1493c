#include "model/gguf_export.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include "model/gguf_checkpoint.h"
#include "model/gguf_names.h"
#include "model/gguf_tokenizer.h"
#include "model/gguf_writer.h"
#include "model/model.h"
#include "model/rope_scaling.h"
#include "model/stored_type.h"
#include "ops/cpu/thread_pool.h"
#include "tensor/narrow.h"
#include "tensor/widen.h"

namespace coppice::model {
namespace {

// llama.cpp's general.file_type.
uint32_t file_type(DType type) {
  switch (type) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ8_0:
      return 7;
    case DType::kQ4_K:
      return 14;
    case DType::kQ5_K:
      return 16;
    case DType::kQ6_K:
      return 18;
    default:
      return 32;
  }
}

// What the frequencies of a model without scaling were divided by, [D / 2] each.
struct RopeDivisors {
  std::vector<float> unscaled, scaled, divisors;

  explicit RopeDivisors(const ModelConfig& config)
      : unscaled(rope_inverse_frequencies(config.rope_theta, config.head_dim, {})),
        scaled(config.rope_inv_freq) {
    for (size_t i = 0; i < unscaled.size(); ++i) {
      divisors.push_back(unscaled[i] / scaled[i]);
      const auto near = around(divisors[i]);
      const auto exact = std::find_if(near.begin(), near.end(), [&](float divisor) {
        return unscaled[i] / divisor == scaled[i];
      });
      if (exact != near.end()) divisors[i] = *exact;
    }
  }
  // A rounded quotient's divisor is one of these.
  static std::array<float, 3> around(float divisor) {
    return {divisor, std::nextafter(divisor, 0.0f), std::nextafter(divisor, INFINITY)};
  }
  bool all_are(float divisor) const {
    return std::equal(unscaled.begin(), unscaled.end(), scaled.begin(),
                      [&](float from, float to) { return from / divisor == to; });
  }
  // The one divisor of all, to the last bit of every quotient; 0 without one.
  float common() const {
    for (const float divisor : divisors) {
      for (const float near : around(divisor)) {
        if (all_are(near)) return near;
      }
    }
    return 0;
  }
};

// A matrix is minutes of work where it is a large embedding: progress is told so often.
constexpr int64_t kRowsAtOnce = 1024;

struct Planned {
  std::string name;  // the checkpoint's, empty: rope_freqs.weight
  Shape shape;
  DType type;
  int64_t rotary_heads = 0;  // > 0: rows are interleaved within each head
};

class Exporter {
 public:
  Exporter(const Checkpoint& checkpoint, const GgufExport& options)
      : checkpoint_(checkpoint),
        config_(checkpoint.config()),
        options_(options),
        pool_(options.threads) {}

  Expected<GgufContents> contents() {
    TRY_STATUS(Model::check(checkpoint_));
    write_config();
    TRY_STATUS(plan_tensors());
    GgufContents contents;
    for (const Planned& planned : planned_) {
      ++contents.tensors[planned.type];
      contents.bytes += dtype_bytes(planned.type, planned.shape.elements());
    }
    return contents;
  }

  Status write(const std::string& path) {
    TRY(const GgufContents planned, contents());
    TRY_STATUS(write_tokenizer());
    total_ = planned.bytes;
    done_ = 0;
    return writer_.write(
        path, [&](size_t i, std::span<std::byte> bytes) { return fill(planned_[i], bytes); });
  }

 private:
  void write_config();
  Status write_tokenizer();
  Status write_ends(int32_t behind);
  Status plan_tensors();
  Status fill(const Planned& planned, std::span<std::byte> bytes);
  Status advance(int64_t bytes);

  const Checkpoint& checkpoint_;
  const ModelConfig& config_;
  const GgufExport& options_;
  ops::cpu::ThreadPool pool_;
  GgufWriter writer_;
  std::vector<float> divisors_;  // of rope_freqs.weight, or empty
  std::vector<Planned> planned_;
  int64_t total_ = 0, done_ = 0;  // bytes
};

void Exporter::write_config() {
  const std::string name(gguf_architecture(config_.architecture));
  const auto integer = [&](const char* key, int64_t value) {
    writer_.integer(name + "." + key, static_cast<uint32_t>(value));
  };
  writer_.text("general.architecture", name);
  writer_.text("general.type", "model");
  writer_.integer("general.file_type", file_type(options_.type));
  writer_.integer("general.quantization_version", 2);
  integer("block_count", config_.num_hidden_layers);
  integer("context_length", config_.max_position_embeddings);
  integer("embedding_length", config_.hidden_size);
  integer("feed_forward_length", config_.intermediate_size);
  integer("attention.head_count", config_.num_attention_heads);
  integer("attention.head_count_kv", config_.num_key_value_heads);
  integer("attention.key_length", config_.head_dim);
  integer("attention.value_length", config_.head_dim);
  integer("rope.dimension_count", config_.head_dim);
  integer("vocab_size", config_.vocab_size);
  writer_.number(name + ".attention.layer_norm_rms_epsilon",
                 static_cast<float>(config_.rms_norm_eps));
  writer_.number(name + ".rope.freq_base", static_cast<float>(config_.rope_theta));
  const RopeDivisors rope(config_);
  if (rope.all_are(1.0f)) return;
  if (const float factor = rope.common(); factor != 0) {
    writer_.text(name + ".rope.scaling.type", "linear");
    writer_.number(name + ".rope.scaling.factor", factor);
  } else {
    divisors_ = rope.divisors;
  }
}

Status Exporter::write_tokenizer() {
  TRY(const std::string json, checkpoint_.tokenizer_json());
  TRY(const GgufVocabulary vocabulary, gguf_vocabulary(json, config_.vocab_size));
  writer_.text("tokenizer.ggml.model", "gpt2");
  writer_.text("tokenizer.ggml.pre", vocabulary.pre);
  writer_.texts("tokenizer.ggml.tokens", vocabulary.tokens);
  writer_.integers("tokenizer.ggml.token_type", vocabulary.types);
  writer_.texts("tokenizer.ggml.merges", vocabulary.merges);
  writer_.flag("tokenizer.ggml.add_bos_token", vocabulary.bos >= 0);
  writer_.flag("tokenizer.ggml.add_eos_token", vocabulary.eos >= 0);
  const int32_t bos = vocabulary.bos >= 0 ? vocabulary.bos : config_.bos_token_id;
  if (bos >= 0) writer_.integer("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(bos));
  return write_ends(vocabulary.eos);
}

// behind: what the tokenizer puts behind a text, which GGUF knows as the first of the tokens that
// end one; -1 without.
Status Exporter::write_ends(int32_t behind) {
  std::vector<int32_t> ends = config_.eos_token_ids;
  const auto first = std::find(ends.begin(), ends.end(), behind);
  if (behind >= 0 && first == ends.end()) {
    return fail(ErrorCode::kUnsupported,
                checkpoint_.tokenizer_path() + ": puts token " + std::to_string(behind) +
                    " behind a text, which GGUF can only say of one that ends generation");
  }
  if (behind >= 0) std::rotate(ends.begin(), first, first + 1);
  const char* keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                        "tokenizer.ggml.eom_token_id"};
  if (ends.size() > std::size(keys)) {
    return fail(ErrorCode::kUnsupported, checkpoint_.path() + ": " + std::to_string(ends.size()) +
                                             " tokens end generation; GGUF has keys for " +
                                             std::to_string(std::size(keys)));
  }
  for (size_t i = 0; i < ends.size(); ++i) {
    writer_.integer(keys[i], static_cast<uint32_t>(ends[i]));
  }
  return {};
}

Status Exporter::plan_tensors() {
  for (const std::string& name : checkpoint_.names()) {
    if (name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight") continue;
    if (config_.tie_word_embeddings && name == "lm_head.weight") continue;
    TRY(const Shape shape, checkpoint_.shape(name));
    planned_.push_back(
        {name, shape, stored_type(options_.type, name, shape), interleaved_heads(config_, name)});
    writer_.tensor(hf_to_gguf(name), shape, planned_.back().type);
  }
  if (!divisors_.empty()) {
    planned_.push_back({"", {static_cast<int64_t>(divisors_.size())}, DType::kF32, 0});
    writer_.tensor("rope_freqs.weight", planned_.back().shape, DType::kF32);
  }
  return {};
}

// Row by row: read as f32, moved to its place in the file's order, stored.
Status Exporter::fill(const Planned& planned, std::span<std::byte> bytes) {
  if (planned.name.empty()) {
    std::memcpy(bytes.data(), divisors_.data(), bytes.size());
    return advance(std::ssize(bytes));
  }
  TRY(const TensorData tensor, checkpoint_.tensor(planned.name, planned.shape));
  const bool matrix = planned.shape.rank() == 2;
  // A vector's elements are rows of one value: biases of rotated heads move one by one.
  const int64_t rows = planned.shape[0], cols = matrix ? planned.shape[1] : 1;
  const TensorView source = matrix ? tensor.view : tensor.view.reshaped({rows, 1});
  const int64_t row_bytes = dtype_bytes(planned.type, cols);
  std::vector<float> values(static_cast<size_t>(options_.threads * cols));
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows - first);
    pool_.parallel_for(static_cast<int32_t>(count), [&](int32_t item, int32_t thread) {
      const int64_t n = first + item;
      float* row = values.data() + thread * cols;
      widen_row(source, n, row);
      const int64_t to = planned.rotary_heads == 0 ? n : interleaved_row(n, config_.head_dim);
      narrow_row(planned.type, row, cols, bytes.data() + to * row_bytes);
    });
    TRY_STATUS(advance(count * row_bytes));
  }
  return {};
}

Status Exporter::advance(int64_t bytes) {
  done_ += bytes;
  return options_.progress ? options_.progress(done_, total_) : Status();
}

}  // namespace

Expected<GgufContents> gguf_contents(const Checkpoint& checkpoint, DType type) {
  const GgufExport options{.type = type, .threads = 1, .progress = {}};
  return Exporter(checkpoint, options).contents();
}

Status export_gguf(const Checkpoint& checkpoint, const std::string& path,
                   const GgufExport& options) {
  if (!can_narrow(options.type)) {
    return fail(ErrorCode::kUnsupported,
                "type " + std::string(dtype_name(options.type)) +
                    " is not written; f32, f16, bf16, q8_0, q4_0, q4_k, q5_k and q6_k are");
  }
  return Exporter(checkpoint, options).write(path);
}

}  // namespace coppice::model
