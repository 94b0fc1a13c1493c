#include <memory>
#include <string>

#include "arguments.h"
#include "base/file.h"
#include "bench_commands.h"
#include "bench_flags.h"
#include "exit_code.h"
#include "model/checkpoint.h"
#include "model_flags.h"
#include "progress.h"
#include "text/tokenizer.h"

namespace coppice::tools {
namespace {

struct Flags {
  std::string model, file;
  Effort effort{5, 2.0};
  bool json = false;
};

Status run(const Flags& flags) {
  TRY(const std::string text, read_file(flags.file));
  if (text.empty()) {
    return fail(ErrorCode::kInvalidArgument, flags.file + ": is empty; name a file with text");
  }
  std::string model = flags.model;
  if (model.empty()) {
    TRY(model, bundled_model());
  }
  TRY(const auto checkpoint, model::Checkpoint::open(model));
  TRY(const std::string json_text, checkpoint->tokenizer_json());
  TRY(const auto tokenizer, text::Tokenizer::load(json_text, checkpoint->tokenizer_path()));
  ProgressLine progress("tokenizing");
  progress.show(0, 1, flags.file);
  size_t tokens = tokenizer->encode(text, false).size();
  Samples seconds;
  spend(flags.effort, [&] {
    const Stopwatch call;
    tokens = tokenizer->encode(text, false).size();
    seconds.add(call.seconds());
  });
  progress.clear();
  const double median = seconds.median(), count = static_cast<double>(tokens);
  nlohmann::ordered_json json{{"model", model},
                              {"file", flags.file},
                              {"bytes", text.size()},
                              {"tokens", tokens},
                              {"bytes_per_token", static_cast<double>(text.size()) / count},
                              {"mb_per_second", static_cast<double>(text.size()) / median * 1e-6},
                              {"tokens_per_second", count / median}};
  seconds.put(json, "seconds");
  json["rounds"] = seconds.count();
  if (flags.json) {
    print_json_line(json);
  } else {
    print_text_line("%s: %zu bytes, %zu tokens (%.2f bytes each), one thread", flags.file.c_str(),
                    text.size(), tokens, json["bytes_per_token"].get<double>());
    print_text_line("%.2f MB/s, %.0f tokens/s; %.2f ms (p10 %.2f, p90 %.2f)",
                    json["mb_per_second"].get<double>(), json["tokens_per_second"].get<double>(),
                    1e3 * median, 1e3 * seconds.quantile(0.1), 1e3 * seconds.quantile(0.9));
  }
  return {};
}

}  // namespace

void add_bench_tokenize(CLI::App& bench, std::function<int()>* run_command) {
  const auto flags = std::make_shared<Flags>();
  CLI::App* app = bench.add_subcommand(
      "tokenize", "Encodes a file on one thread: MB/s (10^6 bytes) and tokens per second");
  app->add_option("--file", flags->file, "the text")
      ->type_name("FILE")
      ->required()
      ->check(not_empty());
  app->add_option("-m,--model", flags->model,
                  "Hugging Face directory or .gguf file (default: the bundled storefront model)")
      ->type_name("PATH")
      ->check(not_empty());
  add_effort_flags(*app, flags->effort);
  app->add_flag("--json", flags->json, "one JSON object on one line");
  app->callback(
      [flags, run_command] { *run_command = [flags] { return exit_code_of(run(*flags)); }; });
}

}  // namespace coppice::tools
