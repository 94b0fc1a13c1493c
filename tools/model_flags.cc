#include "model_flags.h"

#include <filesystem>
#include <limits>
#include <system_error>

#include "arguments.h"
#include "base/log.h"
#include "model/random_checkpoint.h"

namespace coppice::tools {
namespace {

constexpr const char* kBundled = "models/storefront";

// Empty: not given; the parser lets no empty text pass.
Expected<std::optional<int64_t>> size_of(const std::string& text, const char* flag) {
  if (text.empty()) return std::optional<int64_t>();
  TRY(const int64_t bytes, parse_size(text, flag));
  return std::optional<int64_t>(bytes);
}

Status invalid(const std::string& flag, const std::string& value, const std::string& accepted) {
  return fail(ErrorCode::kInvalidArgument, flag + " is \"" + value + "\"; it takes " + accepted);
}

// Flags that are settled but whose work is not in this build.
Status refuse_later(const ModelFlags& flags) {
  if (flags.device == "cuda") {
    return fail(ErrorCode::kUnsupported, "--device cuda: this build has only cpu");
  }
  if (flags.device != "cpu") return invalid("--device", flags.device, "cpu or cuda");
  return {};
}

}  // namespace

void add_model_flags(CLI::App& app, ModelFlags& f) {
  const std::string group = "Model and machine";
  auto* model =
      app.add_option("-m,--model", f.model,
                     "Hugging Face directory or .gguf file (default: the bundled storefront model)")
          ->type_name("PATH")
          ->check(not_empty())
          ->group(group);
  app.add_option("--random-weights", f.random_weights,
                 "random weights instead of a model, to measure: tiny, L1B (the shape of Llama 3.2 "
                 "1B) or E,L,Hq,Hkv,D,F,V; its tokenizer knows single bytes")
      ->type_name("SHAPE")
      ->check(not_empty())
      ->excludes(model)
      ->group(group);
  const auto whole = [&](const std::string& names, auto& value, auto bounds,
                         const std::string& help) {
    add_whole(app, names, value, bounds, help)->group(group);
  };
  whole("-c,--ctx", f.ctx, Bounds<int64_t>{0, 1 << 24},
        "most tokens of a sequence, prompt and answer together; 0: what the model allows "
        "(default 0)");
  whole("-t,--threads", f.threads, Bounds<int32_t>{0, kMostThreads}, kThreadsHelp);
  app.add_option("--dtype", f.dtype, "compute type of the weights: bf16 or f32 (default bf16)")
      ->type_name("TYPE")
      ->group(group);
  app.add_option("--weights", f.weights,
                 "auto: matrices as the file has them; int8: F32, F16 and BF16 ones become Q8_0 "
                 "(groups of 32) as they are loaded (default auto)")
      ->type_name("HOW")
      ->group(group);
  app.add_option("--kv-type", f.kv_type,
                 "type of keys and values: bf16, f32 or int8 (default bf16)")
      ->type_name("TYPE")
      ->group(group);
  app.add_option("--memory", f.memory,
                 "most bytes for weights as packed, activations with a gate's arrays, and pages "
                 "together; the "
                 "model's "
                 "mapped files do not count; K, M, G are powers of 1024")
      ->type_name("SIZE")
      ->check(not_empty())
      ->group(group);
  app.add_option("--kv-budget", f.kv_budget,
                 "bytes for pages of keys and values (default: a quarter of available memory)")
      ->type_name("SIZE")
      ->check(not_empty())
      ->group(group);
  app.add_option("--attention", f.attention,
                 "how the step is partitioned: two-phase or per-sequence (default two-phase); "
                 "pages are shared in both")
      ->type_name("HOW")
      ->group(group);
  app.add_option("--isa", f.isa, "auto, avx512bf16, avx512 or avx2 (default auto)")
      ->type_name("ISA")
      ->group(group);
  app.add_option("--gate", f.gate,
                 "gate file of this model, which says of which tokens keys and values are kept; or "
                 "policy:window, policy:streaming, policy:random,keep=SHARE, "
                 "policy:key-norm,threshold=NORM, each with ,window=N and ,sinks=N")
      ->type_name("FILE")
      ->check(not_empty())
      ->group(group);
  app.add_option("--kv-tier", f.kv_tier,
                 "how much the gate drops where a request does not say: off, mild, normal or hard "
                 "(default normal with --gate, else off)")
      ->type_name("TIER")
      ->check(not_empty())
      ->group(group);
  app.add_option("--gate-max-loss", f.gate_max_loss,
                 "tiers that the gate's calibration report says lose more points than this are "
                 "refused (default 2)")
      ->type_name("POINTS")
      ->group(group);
  app.add_flag("--gate-force", f.gate_force,
               "serve such tiers all the same, and gates of another model of the same shape")
      ->group(group);
  app.add_option("--device", f.device, "cpu; cuda is not in this build yet (default cpu)")
      ->type_name("DEVICE")
      ->group(group);
  whole("-s,--seed", f.seed, Bounds<uint64_t>{0, std::numeric_limits<uint64_t>::max()},
        "seed of requests that bring none (default: drawn)");
  whole("--max-rows", f.max_rows, Bounds<int32_t>{2, 1 << 16},
        "most tokens evaluated in a step (default 512)");
  whole("--slice", f.slice, Bounds<int32_t>{1, 1 << 16},
        "most prompt tokens of one request in a step (default 512)");
  whole("--max-live", f.max_live, Bounds<int32_t>{1, 4096},
        "most sequences in the cache at once (default 64)");
  app.add_flag("--json", f.json, "JSON lines on standard output; times are milliseconds")
      ->group(group);
  app.add_option("--log-format", f.log_format, "text or json (default text)")
      ->type_name("FORMAT")
      ->group(group);
  app.add_flag("-v,--verbose", f.verbose, "say what was probed and chosen")->group(group);
}

Expected<std::string> random_model(const std::string& shape) {
  const auto config = model::random_config(shape);
  if (!config) return fail(config.error().code, "--random-weights: " + config.error().message);
  return std::string(model::kRandomPrefix) + shape;
}

Expected<std::string> bundled_model() {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path beside = fs::read_symlink("/proc/self/exe", ignored).parent_path();
  const fs::path places[] = {fs::path(COPPICE_DATA_DIR) / kBundled, beside / kBundled,
                             beside / "../share/coppice" / kBundled};
  std::string tried;
  for (const fs::path& place : places) {
    if (fs::exists(place / "config.json", ignored)) return place.lexically_normal().string();
    tried += (tried.empty() ? "" : ", ") + place.lexically_normal().string();
  }
  return fail(ErrorCode::kNotFound,
              "no bundled model (looked for " + tried + "); name one with --model PATH");
}

Expected<EngineOptions> options_of(const ModelFlags& flags) {
  if (flags.log_format != "text" && flags.log_format != "json") {
    TRY_STATUS(invalid("--log-format", flags.log_format, "text or json"));
  }
  log::configure(flags.verbose ? log::Level::kDebug : log::Level::kInfo,
                 flags.log_format == "json" ? log::Format::kJson : log::Format::kText);
  EngineOptions options;
  options.ctx = flags.ctx;
  options.threads = flags.threads;
  TRY(options.dtype, parse_weight_type(flags.dtype));
  TRY(options.weights, parse_weight_storage(flags.weights));
  TRY(options.kv_type, parse_kv_type(flags.kv_type));
  TRY(options.memory, size_of(flags.memory, "--memory"));
  TRY(options.kv_budget, size_of(flags.kv_budget, "--kv-budget"));
  TRY(options.attention, parse_partition(flags.attention));
  options.isa = flags.isa;
  options.seed = flags.seed;
  options.max_rows = flags.max_rows;
  options.slice = flags.slice;
  options.max_live = flags.max_live;
  options.profile = flags.profile;
  options.gate = flags.gate;
  options.gate_max_loss = flags.gate_max_loss;
  options.gate_force = flags.gate_force;
  if (!flags.kv_tier.empty()) {
    TRY(options.kv_tier, parse_kv_tier(flags.kv_tier, "--kv-tier"));
  }
  TRY_STATUS(refuse_later(flags));
  options.model = "(bundled)";  // judged with the flags, found only when they are right
  TRY_STATUS(validate(options));
  if (!flags.random_weights.empty()) {
    TRY(options.model, random_model(flags.random_weights));
  } else if (flags.model.empty()) {
    TRY(options.model, bundled_model());
  } else {
    options.model = flags.model;
  }
  return options;
}

}  // namespace coppice::tools
