#include "engine/loader.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "engine/sampler.h"
#include "ops/backends.h"
#include "tensor/quant_block.h"

namespace coppice::engine {
namespace {

// More than any machine has; sums with it stay within 64 bits.
constexpr int64_t kMostPages = int64_t{1} << 60;
// Each ends a run, and a run is a node and a step of its own.
constexpr size_t kMostBoundaries = 256;

DType element(KvType type) {
  switch (type) {
    case KvType::kF32:
      return DType::kF32;
    case KvType::kInt8:
      return DType::kI8;
    case KvType::kBF16:
      break;
  }
  return DType::kBF16;
}

// fixed: what the pages share the memory with.
Status fits_memory(const EngineOptions& options, int64_t fixed, const std::string& pages,
                   int64_t bytes) {
  if (!options.memory || bytes <= *options.memory - fixed) return {};
  const uint64_t all = static_cast<uint64_t>(fixed) + static_cast<uint64_t>(bytes);
  return fail(ErrorCode::kTooLarge, "--memory " + std::to_string(*options.memory) + " (" +
                                        format_size(*options.memory) +
                                        ") cannot hold weights, activations and " + pages + ", " +
                                        std::to_string(all) + " bytes");
}

Expected<int64_t> context_of(const EngineOptions& options, const model::ModelConfig& config) {
  const int64_t most = config.max_position_embeddings;
  if (options.ctx > most) {
    return fail(ErrorCode::kInvalidArgument, "--ctx is " + std::to_string(options.ctx) +
                                                 "; this model allows up to " +
                                                 std::to_string(most));
  }
  return options.ctx > 0 ? options.ctx : most;
}

ops::StepLimits step_limits(const EngineOptions& options, int64_t ctx,
                            const model::ModelConfig& config) {
  const int64_t queries = int64_t{config.num_attention_heads} * config.head_dim;
  return {.rows = options.max_rows,
          .slots = ctx,
          .query_heads = config.num_attention_heads,
          .kv_heads = config.num_key_value_heads,
          .head_dim = config.head_dim,
          .widest =
              std::max({int64_t{config.hidden_size}, int64_t{config.intermediate_size}, queries})};
}

// What the largest step of gated rows holds in every (layer, KV head) list, beside activations and
// pages: targets and bounds of each row, its decision and, where it was dropped, its position; of
// each sequence the list's state (ops/gate_plan.h) and the positions that its window still sees.
int64_t gated_step_bytes(const EngineOptions& options, const model::ModelConfig& config,
                         const ops::KvLayout& layout, const Tiers& tiers) {
  int64_t window = 0;
  for (const auto& tier : tiers.of) {
    if (tier != nullptr) window = std::max<int64_t>(window, tier->rule.window);
  }
  if (window == 0) return 0;  // no tier is served
  constexpr int64_t kIndex = sizeof(int32_t);
  const int64_t bounds = sizeof(ops::KvTarget) + 4 * kIndex;
  const int64_t decision = sizeof(uint8_t) + kIndex;
  const int64_t list = sizeof(ops::GateList) + 2 * kIndex + (window + layout.page_slots) * kIndex;
  // What grows from step to step may come to hold twice what it needs.
  const int64_t each = options.max_rows * (bounds + 2 * decision) + options.max_live * 2 * list;
  return each * config.num_hidden_layers * config.num_key_value_heads;
}

// A page for each layer and head.
int64_t least_budget(const ops::KvLayout& layout, const model::ModelConfig& config) {
  return layout.page_bytes * config.num_hidden_layers * config.num_key_value_heads;
}

Status holds_a_page_each(const EngineOptions& options, int64_t least) {
  const auto check = [&](const std::string& name, const std::optional<int64_t>& bytes) -> Status {
    if (!bytes || *bytes >= least) return {};
    return fail(ErrorCode::kInvalidArgument,
                name + " is " + std::to_string(*bytes) + "; this model takes at least " +
                    std::to_string(least) + " bytes, a page for each layer and head");
  };
  TRY_STATUS(check("--kv-budget", options.kv_budget));
  return check("kv_budget_limit", options.kv_budget_limit);
}

// Whether anything is multiplied in blocks.
bool has_quantised(const model::Checkpoint& checkpoint, const model::ModelOptions& options) {
  if (options.weights) return is_quantised(*options.weights);
  const std::vector<std::string> names = checkpoint.names();
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    const auto shape = checkpoint.shape(name);
    if (!shape) return false;  // the model's to refuse
    const auto form = checkpoint.check(name, *shape);
    return form && is_quantised(form->type);
  });
}

// The bytes of pages: as asked, else a quarter of what was available, within --memory and the
// limit that was asked for. least: what any budget takes.
Expected<int64_t> kv_budget_of(const EngineOptions& options, int64_t available, int64_t fixed,
                               int64_t least) {
  if (options.kv_budget) {
    TRY_STATUS(fits_memory(options, fixed, "--kv-budget", *options.kv_budget));
    return *options.kv_budget;
  }
  TRY_STATUS(fits_memory(options, fixed, "a page for each layer and head", least));
  int64_t budget = std::max(available / 4, least);
  if (options.memory) budget = std::min(budget, *options.memory - fixed);
  if (options.kv_budget_limit) budget = std::min(budget, *options.kv_budget_limit);
  return budget;
}

Expected<std::unique_ptr<model::Gate>> open_gate(const EngineOptions& options,
                                                 const model::Checkpoint& checkpoint,
                                                 ops::Backend& backend, Purpose purpose) {
  if (options.gate.empty()) return std::unique_ptr<model::Gate>();
  const model::GateOptions how{.any_base = options.gate_force,
                               .evaluation = purpose == Purpose::kEvaluate};
  auto gate = model::Gate::open(options.gate, checkpoint, backend, how);
  if (!gate) return fail(gate.error().code, "--gate: " + gate.error().message);
  return gate;
}

// Tiers of a learned gate that lost too much when it was calibrated are not served.
Expected<Tiers> tiers_of(const EngineOptions& options, const model::ModelConfig& config,
                         const model::Gate* gate) {
  Tiers out;
  if (gate == nullptr) return out;
  out.gate_hash = gate->hash();
  out.usual = options.kv_tier.value_or(KvTier::kNormal);
  for (const model::GateTier tier : model::kGateTiers) {
    const size_t i = static_cast<size_t>(tier) + 1;
    const double loss = gate->header() != nullptr ? gate->header()->tier(tier).loss : 0.0;
    if (loss > options.gate_max_loss && !options.gate_force) {
      char text[160];
      std::snprintf(text, sizeof text,
                    "its gate was calibrated to lose %.2f points there, more than --gate-max-loss "
                    "%.2f; --gate-force serves it all the same",
                    loss, options.gate_max_loss);
      out.refused[i] = text;
      continue;
    }
    kv::Tier terms;
    terms.rule = gate->rule(tier);
    terms.decode_gate = gate->decides_generated();
    terms.memory_floats = gate->memory_floats() * config.num_hidden_layers;
    out.of[i] = std::make_shared<const kv::Tier>(terms);
    terms.elastic = true;
    out.elastic[i] = std::make_shared<const kv::Tier>(terms);
  }
  const auto served = serve_tier(out, std::nullopt);
  if (!served)
    return fail(served.error().code, "--gate " + options.gate + ": " + served.error().message);
  return out;
}

}  // namespace

DType plain_weights(const EngineOptions& options) {
  return options.dtype == WeightType::kF32 ? DType::kF32 : DType::kBF16;
}

Expected<std::unique_ptr<ops::Backend>> backend_for(const EngineOptions& options) {
  ops::BackendOptions chosen;
  chosen.threads = options.threads;
  chosen.isa = options.isa;
  chosen.weights = plain_weights(options);
  return ops::make_backend(options.backend, chosen);
}

Expected<Loaded> load(const EngineOptions& options, std::unique_ptr<ops::Backend> backend,
                      const LoadCallback& progress, Purpose purpose) {
  TRY_STATUS(validate(options));
  const int64_t available = available_memory();
  Loaded out;
  Parts& parts = out.parts;
  parts.backend = std::move(backend);
  TRY(parts.checkpoint, model::Checkpoint::open(options.model));
  const model::ModelConfig& config = parts.checkpoint->config();
  TRY(out.limits.ctx, context_of(options, config));
  // Judged before minutes go into the weights.
  TRY(const ops::KvLayout layout,
      parts.backend->kv_layout(element(options.kv_type), config.head_dim));
  const int64_t least = least_budget(layout, config);
  TRY_STATUS(holds_a_page_each(options, least));
  TRY(const std::string tokenizer_json, parts.checkpoint->tokenizer_json());
  TRY(parts.tokenizer, text::Tokenizer::load(tokenizer_json, parts.checkpoint->tokenizer_path()));
  model::ModelOptions shape;
  shape.max_rows = options.max_rows;
  shape.max_logit_rows = options.prompt_logits ? options.max_rows : options.max_live;
  shape.memory_limit = options.memory.value_or(0);
  if (options.weights == WeightStorage::kInt8) shape.weights = DType::kQ8_0;
  ops::StepLimits step = step_limits(options, out.limits.ctx, config);
  step.quantised = has_quantised(*parts.checkpoint, shape);
  TRY_STATUS(parts.backend->reserve(step));
  TRY_STATUS(fits_memory(options, 0, "kv_budget_limit", options.kv_budget_limit.value_or(0)));
  TRY(parts.gate, open_gate(options, *parts.checkpoint, *parts.backend, purpose));
  TRY(out.tiers, tiers_of(options, config, parts.gate.get()));
  int64_t gate_bytes = 0;
  if (parts.gate != nullptr) {
    shape.gate = parts.gate->needs();
    gate_bytes = parts.gate->weight_bytes();
  }
  const int64_t gated_bytes = gated_step_bytes(options, config, layout, out.tiers);
  shape.scratch_bytes = parts.backend->scratch_bytes() + gated_bytes + gate_bytes;
  const int64_t pages =
      std::max(options.kv_budget.value_or(least), options.kv_budget_limit.value_or(0));
  shape.page_bytes = std::min(pages, kMostPages);
  TRY(parts.model, model::Model::load(*parts.checkpoint, *parts.backend, shape, progress));

  out.info.weight_bytes = parts.model->weight_bytes() + gate_bytes;
  if (parts.gate != nullptr) out.info.gate = parts.gate->describe();
  out.info.activation_bytes =
      parts.model->activation_bytes() + parts.backend->scratch_bytes() + gated_bytes;
  const int64_t fixed = out.info.weight_bytes + out.info.activation_bytes;
  TRY(out.limits.kv_budget, kv_budget_of(options, available, fixed, least));
  out.limits.kv_budget_limit = options.kv_budget_limit.value_or(out.limits.kv_budget);
  TRY_STATUS(fits_memory(options, fixed, "kv_budget_limit", out.limits.kv_budget_limit));
  out.limits.max_rows = options.max_rows;
  out.limits.slice = options.slice;
  out.limits.max_live = options.max_live;
  out.limits.prompt_logits = options.prompt_logits;
  out.partition = options.attention == AttentionPartition::kTwoPhase ? kv::Partition::kTwoPhase
                                                                     : kv::Partition::kPerSequence;

  kv::KvCacheOptions cache;
  cache.layers = config.num_hidden_layers;
  cache.kv_heads = config.num_key_value_heads;
  cache.head_dim = config.head_dim;
  cache.kv_type = element(options.kv_type);
  cache.budget_bytes = out.limits.kv_budget;
  cache.max_budget_bytes = out.limits.kv_budget_limit;
  TRY(parts.cache, kv::KvCache::create(*parts.backend, cache, kv::least_recently_used()));

  out.info.backend = parts.backend->describe();
  out.info.ctx = out.limits.ctx;
  out.info.vocab_size = config.vocab_size;
  out.info.kv_budget = out.limits.kv_budget;
  return out;
}

Expected<KvTier> serve_tier(const Tiers& tiers, std::optional<KvTier> asked) {
  const KvTier tier = asked.value_or(tiers.usual);
  const auto i = static_cast<size_t>(tier);
  if (tier == KvTier::kOff || tiers.of[i] != nullptr) return tier;
  return fail(
      ErrorCode::kInvalidArgument,
      "kv_tier " + std::string(kv_tier_name(tier)) + ": " +
          (tiers.refused[i].empty() ? "no gate is loaded; --gate names one" : tiers.refused[i]));
}

kv::Scope scope_of(const std::string& model, const Tiers& tiers, KvTier tier,
                   const std::string& cache_salt, KvThinning thinning) {
  std::string scope = model + '\n' + std::string(kv_tier_name(tier));
  if (tier != KvTier::kOff) {
    const kv::Tier& terms = *tiers.of[static_cast<size_t>(tier)];
    scope += ' ' + std::to_string(tiers.gate_hash) + (terms.decode_gate ? "" : " prompts");
    if (thinning == KvThinning::kAllow) scope += " elastic";
  }
  return scope + '\n' + cache_salt;
}

namespace {

Status check_prompt(const std::vector<TokenId>& prompt, int64_t vocab, int64_t ctx) {
  if (prompt.empty()) {
    return fail(ErrorCode::kInvalidArgument, "prompt is empty; it needs at least one token");
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    if (prompt[i] >= 0 && prompt[i] < vocab) continue;
    return fail(ErrorCode::kInvalidArgument,
                "prompt[" + std::to_string(i) + "] is token " + std::to_string(prompt[i]) +
                    "; the vocabulary has 0 to " + std::to_string(vocab - 1));
  }
  if (static_cast<int64_t>(prompt.size()) >= ctx) {
    return fail(ErrorCode::kInvalidArgument, "prompt has " + std::to_string(prompt.size()) +
                                                 " tokens; --ctx " + std::to_string(ctx) +
                                                 " allows " + std::to_string(ctx - 1) +
                                                 " and one for the answer");
  }
  return {};
}

// Ascending, and apart.
Expected<std::vector<TokenRange>> sorted_ranges(std::vector<TokenRange> ranges, int64_t tokens) {
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (ranges[i].begin >= 0 && ranges[i].begin <= ranges[i].end && ranges[i].end <= tokens) {
      continue;
    }
    return fail(ErrorCode::kInvalidArgument,
                "exact[" + std::to_string(i) + "] is [" + std::to_string(ranges[i].begin) + ", " +
                    std::to_string(ranges[i].end) + "); it takes tokens of the prompt, 0 to " +
                    std::to_string(tokens));
  }
  std::ranges::sort(ranges, {}, &TokenRange::begin);
  std::vector<TokenRange> out;
  for (const TokenRange& range : ranges) {
    if (range.begin == range.end) continue;
    if (!out.empty() && range.begin <= out.back().end) {
      out.back().end = std::max(out.back().end, range.end);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

Expected<std::vector<int64_t>> sorted_places(std::vector<int64_t> places, int64_t tokens) {
  if (places.size() > kMostBoundaries) {
    return fail(ErrorCode::kInvalidArgument, "boundaries holds " + std::to_string(places.size()) +
                                                 " places; it takes up to " +
                                                 std::to_string(kMostBoundaries));
  }
  for (size_t i = 0; i < places.size(); ++i) {
    if (places[i] >= 0 && places[i] <= tokens) continue;
    return fail(ErrorCode::kInvalidArgument,
                "boundaries[" + std::to_string(i) + "] is " + std::to_string(places[i]) +
                    "; it takes 0 to the prompt's " + std::to_string(tokens) + " tokens");
  }
  std::ranges::sort(places);
  places.erase(std::unique(places.begin(), places.end()), places.end());
  return places;
}

}  // namespace

Status mark_exact(const std::vector<TokenRange>& exact, std::vector<TokenId>& tokens) {
  TRY(const auto ranges, sorted_ranges(exact, std::ssize(tokens)));
  for (const TokenRange& range : ranges) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      tokens[static_cast<size_t>(i)] |= kv::kExactToken;
    }
  }
  return {};
}

Expected<std::shared_ptr<const Submission>> prepare(Request request,
                                                    std::shared_ptr<Observer> observer,
                                                    const Parts& parts, const Limits& limits,
                                                    const Tiers& tiers, const std::string& model,
                                                    RequestId number, uint64_t default_seed) {
  const model::ModelConfig& config = parts.model->config();
  TRY_STATUS(validate(request.sampling));
  for (const TokenId id : request.sampling.stop_token_ids) {
    if (id >= 0 && id < config.vocab_size) continue;
    return fail(ErrorCode::kInvalidArgument, "stop_token_ids holds " + std::to_string(id) +
                                                 "; the vocabulary has 0 to " +
                                                 std::to_string(config.vocab_size - 1));
  }
  if (request.prompt_logits && !limits.prompt_logits) {
    return fail(ErrorCode::kInvalidArgument,
                "prompt_logits needs an engine that was opened for them");
  }
  auto out = std::make_shared<Submission>();
  if (auto* text = std::get_if<std::string>(&request.prompt)) {
    out->prompt = parts.tokenizer->encode(*text, true);
  } else {
    out->prompt = std::move(std::get<std::vector<TokenId>>(request.prompt));
  }
  TRY_STATUS(check_prompt(out->prompt, config.vocab_size, limits.ctx));
  TRY(out->exact, sorted_ranges(std::move(request.exact), std::ssize(out->prompt)));
  TRY(out->boundaries, sorted_places(std::move(request.boundaries), std::ssize(out->prompt)));
  TRY(const KvTier tier, serve_tier(tiers, request.kv_tier));
  const bool elastic = request.kv_thinning == KvThinning::kAllow;
  out->tier = (elastic ? tiers.elastic : tiers.of)[static_cast<size_t>(tier)];
  out->id = number;
  out->scope = scope_of(model, tiers, tier, request.cache_salt, request.kv_thinning);
  out->stop_tokens = request.sampling.stop_token_ids;
  if (!request.sampling.ignore_eos) {
    out->stop_tokens.insert(out->stop_tokens.end(), config.eos_token_ids.begin(),
                            config.eos_token_ids.end());
  }
  out->seed = request.sampling.seed.value_or(derived_seed(default_seed, number));
  out->sampling = std::move(request.sampling);
  out->prompt_logits = request.prompt_logits;
  out->observer = std::move(observer);
  out->submitted = Clock::now();
  return std::shared_ptr<const Submission>(std::move(out));
}

}  // namespace coppice::engine
