#include "train/gate_trainer.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>

#include <nlohmann/json.hpp>

#include "train/gate_calibration.h"
#include "train/kvzip.h"
#include "train/merged_base.h"

namespace coppice::train {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::ordered_json;

constexpr double kAdapterRate = 0.1;  // of the gate's learning rate
constexpr double kWarmup = 0.1;       // of the steps

double elapsed_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// A seed for item n of a named stream of a run.
uint64_t gate_stream(uint64_t run_seed, uint64_t name, uint64_t n) {
  return storefront::Random(storefront::Random(run_seed * 0x6a7e + name).next() + n).next();
}

AdamWOptions gate_adam() {
  AdamWOptions options;
  options.weight_decay = 0;
  return options;
}

// What would otherwise fail when the run ends.
Status check_options(const GateOptions& o) {
  std::error_code error;
  const auto folder = std::filesystem::absolute(o.out).parent_path();
  std::filesystem::create_directories(folder, error);
  if (error) return fail(ErrorCode::kInternal, folder.string() + ": " + error.message());
  const std::string checkpoint = o.out.string() + ".checkpoint";
  const bool exists = std::filesystem::exists(checkpoint);
  if (exists != o.resume) {
    return fail(
        ErrorCode::kInvalidArgument,
        checkpoint + (exists ? ": exists; give --resume or another --out" : ": nothing to resume"));
  }
  using model::GateLimits;
  if (o.kind != GateKind::kPoint &&
      (o.head_dim % 2 != 0 || o.heads * o.head_dim > GateLimits::kWidth)) {
    return fail(ErrorCode::kInvalidArgument,
                "--head-dim: must be even, and --heads times it at most " +
                    std::to_string(GateLimits::kWidth));
  }
  if (o.lora > 0 && o.method == GateMethod::kKvzap) {
    return fail(ErrorCode::kInvalidArgument, "--lora: kvzap leaves the base as it is");
  }
  if (o.lora > 0 && !std::filesystem::is_directory(o.model)) {
    return fail(ErrorCode::kUnsupported,
                "--lora: " + o.model.string() + ": only a directory's base is written anew");
  }
  return {};
}

Status check_base(const GateOptions& o, const model::ModelConfig& base) {
  if (o.length <= base.max_position_embeddings) return {};
  return fail(ErrorCode::kInvalidArgument, "--length: " + std::to_string(o.length) +
                                               " is more than max_position_embeddings, " +
                                               std::to_string(base.max_position_embeddings));
}

GateHeader header_of(const GateOptions& o, const TwinConfig& c) {
  GateHeader header;
  header.kind = o.kind;
  header.hidden_size = static_cast<int32_t>(c.hidden_size);
  header.num_hidden_layers = static_cast<int32_t>(c.num_hidden_layers);
  header.num_key_value_heads = static_cast<int32_t>(c.num_key_value_heads);
  header.window = static_cast<int32_t>(o.window);
  header.sinks = static_cast<int32_t>(o.sinks);
  if (o.kind == GateKind::kPoint) return header;
  header.heads = static_cast<int32_t>(o.heads);
  header.head_dim = static_cast<int32_t>(o.head_dim);
  if (o.kind == GateKind::kGlobal) return header;
  header.reach = static_cast<int32_t>(o.reach);
  header.rope_theta = c.rope_theta;
  return header;
}

}  // namespace

GateTrainer::GateTrainer(const GateOptions& options, Twin base, GateData data,
                         const GateHeader& header, std::string hash)
    : options_(options),
      data_(std::move(data)),
      teacher_(base),
      student_(base),
      net_(header, gate_stream(options.seed, 0, 0)),
      objective_(options),
      adam_(net_.parameters(), gate_adam()),
      adapter_adam_({}, gate_adam()),
      base_hash_(std::move(hash)) {
  teacher_.freeze();
  if (options.lora == 0) return;
  student_.add_adapters(options.lora, gate_stream(options.seed, 0, 1));
  adapter_adam_ = AdamW(student_.adapters(), gate_adam());
}

Expected<GateTrainer> GateTrainer::open(const GateOptions& options) {
  TRY_STATUS(check_options(options));
  at::set_num_threads(options.threads);
  TRY(const auto reader, CheckpointReader::open(options.model.string()));
  TRY_STATUS(check_base(options, reader.config()));
  TRY(const std::string tokenizer, reader.tokenizer_json());
  const auto& eos = reader.config().eos_token_ids;
  TRY(GateData data, GateData::open(options.data, tokenizer, reader.tokenizer_path(),
                                    reader.config().vocab_size, eos.empty() ? -1 : eos.front()));
  TRY(const std::string hash, base_hash_of(reader));
  TRY(Twin base, Twin::load(options.model));
  const GateHeader header = header_of(options, base.config());
  GateTrainer trainer(options, std::move(base), std::move(data), header, hash);
  if (options.resume) {
    TRY_STATUS(trainer.restore());
  } else if (!options.init.empty()) {
    TRY(const auto archive, read_gate(options.init.string()));
    TRY_STATUS(trainer.start_from(archive));
  }
  return trainer;
}

// Its normal tier becomes the logit 0. What the file's kind lacks stays as drawn.
Status GateTrainer::start_from(const GateArchive& archive) {
  torch::NoGradGuard no_grad;
  const GateHeader &from = archive.header, &to = net_.header();
  const std::string where = "--init: " + options_.init.string() + ": ";
  if (from.hidden_size != to.hidden_size || from.num_hidden_layers != to.num_hidden_layers ||
      from.num_key_value_heads != to.num_key_value_heads) {
    return fail(ErrorCode::kInvalidArgument, where + "is for a model of another shape");
  }
  const bool alike = from.kind == to.kind && from.width() == to.width();
  if (!alike && from.kind != GateKind::kPoint) {
    return fail(ErrorCode::kInvalidArgument,
                where + "is a " + std::string(model::gate_kind_name(from.kind)) +
                    " gate; its kind and sizes must be this gate's, or its kind point");
  }
  const float normal = from.tier(model::GateTier::kNormal).threshold;
  for (auto [name, tensor] : net_.parameters()) {
    const auto found = archive.tensors.find(name);
    if (found == archive.tensors.end()) continue;
    tensor.copy_(torch::tensor(found->second).view(tensor.sizes()));
    if (name.ends_with(".b")) tensor.sub_(normal);
  }
  return {};
}

double GateTrainer::progress() const {
  return static_cast<double>(adam_.steps()) / static_cast<double>(options_.steps);
}

// Warm-up, then down to a tenth by a cosine.
double GateTrainer::learning_rate(int64_t step) const {
  const double at = static_cast<double>(step) / static_cast<double>(options_.steps);
  const double warm = std::min(1.0, at / kWarmup);
  const double part = std::clamp((at - kWarmup) / (1 - kWarmup), 0.0, 1.0);
  return options_.learning_rate * warm * (0.1 + 0.9 * 0.5 * (1 + std::cos(M_PI * part)));
}

std::vector<GateSample> GateTrainer::draw_samples(uint64_t seed, bool copies) const {
  storefront::Random random(seed);
  // Log-uniform between the two.
  const auto most = static_cast<double>(options_.length);
  const double least =
      options_.shortest > 0 ? std::min(most, static_cast<double>(options_.shortest)) : most / 4;
  const int length = std::max(families::kMinTokens,
                              static_cast<int>(most * std::pow(least / most, random.uniform())));
  std::vector<GateSample> samples;
  int64_t tokens = 0;
  while (tokens < options_.step_tokens) {
    samples.push_back(copies ? data_.draw_copy(random.next(), length)
                             : data_.draw(random.next(), length));
    tokens += static_cast<int64_t>(samples.back().ids.size());
  }
  return samples;
}

torch::Tensor GateTrainer::learned_step(double progress, uint64_t seed) {
  const GateBatch batch = make_gate_batch(draw_samples(seed, false), options_.most_rows, seed);
  tokens_ += batch.lengths.sum().item<int64_t>();
  auto loss = objective_.loss(teacher_, student_, net_, batch, progress, seed);
  for (size_t bin = 0; bin < kept_.size(); ++bin) {
    if (std::isnan(objective_.parts().keep[bin])) continue;
    kept_[bin] += objective_.parts().keep[bin];
    ++kept_steps_[bin];
  }
  return loss;
}

torch::Tensor GateTrainer::replay_step(double progress, uint64_t seed) {
  const GateBatch batch = make_gate_batch(draw_samples(seed, true), 1, seed);
  tokens_ += batch.lengths.sum().item<int64_t>();
  ReplayScores replay(teacher_, batch.prompts, batch.lengths, options_.value_norms);
  {
    torch::NoGradGuard no_grad;
    teacher_.hidden(batch.inputs, &replay);
  }
  return replay_loss(net_, replay, batch, options_.sinks, progress == 0);
}

Expected<double> GateTrainer::step() {
  const int64_t number = adam_.steps() + 1;
  const uint64_t seed = gate_stream(options_.seed, 1, static_cast<uint64_t>(number));
  const auto loss = options_.method == GateMethod::kKvzap ? replay_step(progress(), seed)
                                                          : learned_step(progress(), seed);
  const double value = loss.item<double>();
  const auto not_finite = [&](const char* what) {
    return fail(ErrorCode::kInternal, "step " + std::to_string(number) + ": the " + what +
                                          " is not finite; resume from the last checkpoint with a "
                                          "lower --lr or less --alpha");
  };
  if (!std::isfinite(value)) return not_finite("loss");
  loss.backward();
  grad_norm_ = adam_.step(learning_rate(number));
  if (options_.lora > 0) {
    grad_norm_ = std::hypot(grad_norm_, adapter_adam_.step(kAdapterRate * learning_rate(number)));
  }
  if (!std::isfinite(grad_norm_)) return not_finite("gradient");
  return value;
}

Status GateTrainer::run() {
  auto saved = Clock::now(), window = Clock::now();
  double sum = 0;
  int64_t since = 0;
  while (adam_.steps() < options_.steps) {
    TRY(const double loss, step());
    sum += loss;
    if (++since == options_.report_every || adam_.steps() == options_.steps) {
      TRY_STATUS(report(sum / static_cast<double>(since),
                        elapsed_since(window) / static_cast<double>(since)));
      sum = 0;
      since = 0;
      window = Clock::now();
    }
    if (options_.interrupted && options_.interrupted()) {
      TRY_STATUS(save());
      return fail(ErrorCode::kCancelled, "interrupted after step " + std::to_string(adam_.steps()) +
                                             "; " + checkpoint().string() +
                                             " goes on with --resume");
    }
    if (elapsed_since(saved) > static_cast<double>(options_.save_seconds)) {
      TRY_STATUS(save());
      saved = Clock::now();
    }
  }
  TRY_STATUS(save());
  return finish();
}

Status GateTrainer::report(double loss, double seconds_a_step) {
  const auto& parts = objective_.parts();
  const double left = static_cast<double>(options_.steps - adam_.steps()) * seconds_a_step;
  std::printf("step %lld/%lld  loss %.4f", static_cast<long long>(adam_.steps()),
              static_cast<long long>(options_.steps), loss);
  if (options_.method == GateMethod::kLearned) {
    std::printf("  answers %.3f  kd %.3f  keep", parts.answers, parts.kd);
    for (size_t bin = 0; bin < kept_.size(); ++bin) {
      std::printf(" %.3f", kept_steps_[bin] > 0 ? kept_[bin] / kept_steps_[bin] : std::nan(""));
    }
  }
  std::printf("  %.2f M tokens  %.2f s a step  %.0f min left\n",
              static_cast<double>(tokens_) * 1e-6, seconds_a_step, left / 60);
  std::fflush(stdout);
  const Status logged = options_.log.empty() ? Status() : log_line(loss, seconds_a_step);
  kept_.fill(0);
  kept_steps_.fill(0);
  return logged;
}

Status GateTrainer::log_line(double loss, double seconds_a_step) const {
  const auto& parts = objective_.parts();
  ordered_json line = {{"step", adam_.steps()},   {"loss", loss},
                       {"tokens", tokens_},       {"lr", learning_rate(adam_.steps())},
                       {"grad_norm", grad_norm_}, {"seconds_a_step", seconds_a_step}};
  if (options_.method == GateMethod::kLearned) {
    ordered_json keep = ordered_json::array(), target = ordered_json::array();
    for (size_t bin = 0; bin < kept_.size(); ++bin) {
      const double u = (static_cast<double>(bin) + 0.5) / kTierBins;
      keep.push_back(kept_steps_[bin] > 0 ? ordered_json(kept_[bin] / kept_steps_[bin])
                                          : ordered_json());
      target.push_back(keep_target(options_, u, progress()));
    }
    line.update({{"answers", parts.answers},
                 {"kd", parts.kd},
                 {"hinge", parts.hinge},
                 {"polarised", parts.polarised},
                 {"noise", noise_scale(options_, progress())},
                 {"keep", keep},
                 {"keep_target", target}});
  }
  std::ofstream log(options_.log, std::ios::app);
  log << line.dump() << "\n";
  if (!log) return fail(ErrorCode::kInternal, options_.log + ": cannot write");
  return {};
}

Status GateTrainer::finish() {
  GateHeader header = net_.header();
  header.base = base_hash_;
  TRY_STATUS(calibrate(student_, net_, data_, options_, header));
  if (options_.lora > 0) {
    const auto to = options_.lora_out.empty()
                        ? std::filesystem::path(options_.out.string() + ".base")
                        : options_.lora_out;
    TRY_STATUS(write_merged_base(student_, options_.model, to));
    TRY(const auto merged, CheckpointReader::open(to.string()));
    TRY(header.base, base_hash_of(merged));
    header.note = "for " + to.filename().string() + ": " + options_.model.filename().string() +
                  " with adapters of rank " + std::to_string(options_.lora) + " merged";
    std::printf("  base with adapters merged: %s\n", to.string().c_str());
  }
  TRY_STATUS(write_gate(options_.out.string(), header,
                        [&](const std::string& name) { return net_.values(name); }));
  std::printf("  %s\n", options_.out.string().c_str());
  return {};
}

}  // namespace coppice::train
